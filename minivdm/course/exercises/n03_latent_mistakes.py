"""Wrong answers that newcomers really give about latents, their price and their scale, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake

REPARAMETERIZE = (
    Mistake(
        "logvar taken for σ",
        lambda mean, logvar, noise: mean + logvar * noise,
        "You multiply the noise by `logvar` itself.",
        "It is the logarithm of a variance, and often negative. A network may output any number; the exponential makes "
        "a size of it.",
        "what σ belongs to logvar = 0, and what does your function use there?",
    ),
    Mistake(
        "variance for σ",
        lambda mean, logvar, noise: mean + logvar.exp() * noise,
        "You multiply the noise by e^logvar, which is the variance.",
        "A factor acts on the variance squared, so it has to be the standard deviation, e^(logvar/2).",
        "what is the variance of 4 · noise?",
    ),
    Mistake(
        "mean forgotten",
        lambda mean, logvar, noise: torch.exp(0.5 * logvar) * noise,
        "You stretch the noise and never move it: `mean` has no part in your answer.",
        "Everything the encoder knows about the picture is in the mean.",
        "where would all the latents lie in your version, whatever the picture?",
    ),
    Mistake(
        "moved before stretched",
        lambda mean, logvar, noise: (mean + noise) * torch.exp(0.5 * logvar),
        "You multiply the mean by σ too.",
        "Stretch the noise first, then move it: σ acts on the noise alone.",
        "what should come out when the noise is zero?",
    ),
    Mistake(
        "divided by σ",
        lambda mean, logvar, noise: mean + torch.exp(-0.5 * logvar) * noise,
        "Your noise grows where the encoder is sure, and shrinks where it is not: the sign in the exponent is flipped.",
        "A large logvar means a large variance.",
        "how far may z stray from the mean when logvar = −20?",
    ),
    Mistake(
        "clamped",
        lambda mean, logvar, noise: mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise,
        "You clamp `logvar` to [−30, 20].",
        "Right for a whole VAE, where the distribution does it once; this function takes logvar as it is.",
        "what gradient does logvar get where the clamp holds?",
    ),
    Mistake(
        "σ without gradient",
        lambda mean, logvar, noise: mean + torch.exp(0.5 * logvar.detach()) * noise,
        "The value is right, but no gradient reaches `logvar`.",
        "The whole trick is that it does: the encoder has to learn how sure it may be.",
        "which line cuts it off (`detach`, `no_grad`, `.data`, `.item()`)?",
    ),
    Mistake(
        "no gradient at all",
        lambda mean, logvar, noise: (mean + torch.exp(0.5 * logvar) * noise).detach(),
        "The value is right, but no gradient comes back, neither to `mean` nor to `logvar`.",
        "A draw from `torch.normal` or under `no_grad` is a wall; mean + σ·noise is a window.",
        "how would the encoder ever hear of the decoder's errors?",
    ),
)


def _kl(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar)


KL_TO_STANDARD_NORMAL = (
    Mistake(
        "mean for sum",
        lambda mean, logvar: _kl(mean, logvar).flatten(1).mean(1),
        "You take the mean over the latent, not the sum.",
        "Independent numbers each cost their own nats, and costs add up. A mean makes the same KL weight thousands of "
        "times weaker, and it still trains.",
        "should a latent twice as large cost as much as a small one?",
    ),
    Mistake(
        "half forgotten",
        lambda mean, logvar: 2 * _kl(mean, logvar).flatten(1).sum(1),
        "Everything is right but the factor ½ in front.",
        "It comes from the ½ in the exponent of the Gaussian.",
        "what is the KL of N(1, 1) from N(0, 1)?",
    ),
    Mistake(
        "axes 1, 2 and 3 only",
        lambda mean, logvar: _kl(mean, logvar).sum(dim=[1, 2, 3]),
        "You sum over axes 1, 2 and 3, whatever the rank: right for pictures, wrong for clips and vectors.",
        "In a clip (B, C, T, H, W) an axis stays behind, and the shape (B, W) then broadcasts on without any error.",
        "how do you name “every axis but the first” for any rank?",
    ),
    Mistake(
        "channels only",
        lambda mean, logvar: _kl(mean, logvar).sum(1),
        "You sum over the channels only, and rows and columns are left.",
        "One bill per sample: every number of its latent counts.",
        "what shape has one number per sample?",
    ),
    Mistake(
        "summed over the batch",
        lambda mean, logvar: _kl(mean, logvar).sum(0),
        "You summed the samples together and kept the latent apart: the wrong axis.",
        "The batch is the one axis that stays.",
        "which axis counts samples?",
    ),
    Mistake(
        "one number for all",
        lambda mean, logvar: _kl(mean, logvar).sum(),
        "You return one number for the whole batch.",
        "Each sample has a KL of its own, shape (B,); the loss averages them later.",
        "which sample is expensive, and could you tell from your answer?",
    ),
    Mistake(
        "averaged over the batch",
        lambda mean, logvar: _kl(mean, logvar).flatten(1).sum(1).mean(),
        "Right sums, but you averaged them over the batch as well.",
        "Each sample has a KL of its own, shape (B,); the loss averages them later.",
        "can two batches with the same average hold quite different pictures?",
    ),
    Mistake(
        "logvar taken for log σ",
        lambda mean, logvar: _kl(mean, 2 * logvar).flatten(1).sum(1),
        "You read `logvar` as the logarithm of σ.",
        "Here e^logvar is the variance itself, no square is needed.",
        "what is the variance for logvar = 1?",
    ),
    Mistake(
        "−1 forgotten",
        lambda mean, logvar: (_kl(mean, logvar) + 0.5).flatten(1).sum(1),
        "You are too high by ½ for every number of the latent: the −1 is missing.",
        "The price of saying exactly what everyone expects is zero.",
        "what does your function return for mean 0 and logvar 0?",
    ),
    Mistake(
        "sign flipped",
        lambda mean, logvar: -_kl(mean, logvar).flatten(1).sum(1),
        "All your numbers are the negative of what is expected.",
        "The well-known form −½ Σ(1 + logvar − mean² − e^logvar) has its minus in front of the other signs.",
        "can a KL divergence be negative?",
    ),
    Mistake(
        "mean not squared",
        lambda mean, logvar: (_kl(mean, logvar) - 0.5 * mean**2 + 0.5 * mean).flatten(1).sum(1),
        "The mean enters without its square.",
        "The cost grows with the squared distance from zero, on both sides alike.",
        "should a mean of −3 be cheaper than a mean of 0?",
    ),
    Mistake(
        "detached",
        lambda mean, logvar: _kl(mean, logvar).flatten(1).sum(1).detach(),
        "The value is right, but no gradient comes back.",
        "The KL is there to pull on the encoder. Without a gradient it is only a number to look at.",
        "which line cuts it off (`detach`, `no_grad`, `.data`, `torch.tensor`)?",
    ),
)


def _nll(x, x_rec, logvar, kl, kl_weight, error=torch.abs):
    return ((error(x - x_rec) * torch.exp(-logvar) + logvar).sum() + kl_weight * kl.sum()) / len(x)


NLL = (
    Mistake(
        "logvar added once",
        lambda x, x_rec, logvar, kl, w: _nll(x, x_rec, logvar, kl, w) - logvar * x[0].numel() + logvar,
        "You add `logvar` once instead of once per number of the picture.",
        "Each number of the picture has its own density, and logvar stands in each: it belongs inside the sum.",
        "for which logvar is your loss smallest, and should that depend on the size of the picture?",
    ),
    Mistake(
        "logvar forgotten",
        lambda x, x_rec, logvar, kl, w: _nll(x, x_rec, logvar, kl, w) - logvar * x[0].numel(),
        "The errors are divided by e^logvar, but nothing is paid for a large logvar.",
        "The second term, + logvar, is what keeps the network from calling every error small.",
        "where would training drive logvar in your version?",
    ),
    Mistake(
        "mean for sum",
        lambda x, x_rec, logvar, kl, w: (
            ((x - x_rec).abs() * torch.exp(-logvar) + logvar).mean() + w * kl.sum() / len(x)
        ),
        "You average the reconstruction over all pixels.",
        "The KL is a sum over the latent, so the errors must be a sum over the picture; only the batch is averaged.",
        "by which factor does your KL weigh more than the author of `kl_weight` meant?",
    ),
    Mistake(
        "not divided by the batch",
        lambda x, x_rec, logvar, kl, w: len(x) * _nll(x, x_rec, logvar, kl, w),
        "You are too high by the batch size, everywhere.",
        "A sum over the batch would make the gradient grow with it.",
        "should the learning rate have to change when the batch does?",
    ),
    Mistake(
        "KL not averaged",
        lambda x, x_rec, logvar, kl, w: _nll(x, x_rec, logvar, kl, w) + w * (kl.sum() - kl.mean()),
        "The reconstruction is per sample, but the KL is summed over the whole batch.",
        "Both terms are divided by B, or neither.",
        "what happens to the balance of the two when the batch doubles?",
    ),
    Mistake(
        "KL weight forgotten",
        lambda x, x_rec, logvar, kl, w: _nll(x, x_rec, logvar, kl, 1.0),
        "You add the KL at full weight: `kl_weight` is not used.",
        "With weight 1 the latents of small pictures turn to fog; real models use about 10⁻⁶.",
        "what would the decoder see if every latent were a standard normal?",
    ),
    Mistake(
        "squared error",
        lambda x, x_rec, logvar, kl, w: _nll(x, x_rec, logvar, kl, w, torch.square),
        "You square the error.",
        "Here it is the absolute value (a Laplace density): one missed spark does not outweigh all the rest.",
        "how much more does an error of 2 cost than one of 1, in your version and in the text?",
    ),
    Mistake(
        "sign in the exponent",
        lambda x, x_rec, logvar, kl, w: ((((x - x_rec).abs() * logvar.exp() + logvar).sum()) + w * kl.sum()) / len(x),
        "You multiply the error by e^(+logvar).",
        "A larger spread makes an error less surprising: divide by it.",
        "should an error cost more or less when the network has said that it is unsure?",
    ),
    Mistake(
        "logvar without gradient",
        lambda x, x_rec, logvar, kl, w: _nll(x, x_rec, logvar.detach(), kl, w),
        "The value is right, but `logvar` gets no gradient.",
        "It is a parameter that learns how good the reconstruction is (`logvar.item()` is a plain number).",
        "which line cuts it off?",
    ),
)

LATENT_SCALE = (
    Mistake(
        "the deviation itself",
        lambda latents: float(latents.std()),
        "You return the standard deviation, not its reciprocal.",
        "The scale is what latents get multiplied by, and after that they should have deviation 1.",
        "latents of size 5: should the scale be 5 or 0.2?",
    ),
    Mistake(
        "variance for deviation",
        lambda latents: 1 / float(latents.var()),
        "You divide by the variance.",
        "A factor s changes the deviation by s and the variance by s².",
        "what is the deviation of your scaled latents?",
    ),
    Mistake(
        "mean not taken off",
        lambda latents: 1 / float((latents**2).mean().sqrt()),
        "You divide by the root of the mean square, as if the latents had mean zero.",
        "The deviation is measured around the mean.",
        "what does your function return when all latents are 7, give or take a little?",
    ),
    Mistake(
        "channel by channel, averaged",
        lambda latents: 1 / float(latents.std(dim=(0, 2, 3)).mean()),
        "You measured every channel alone and averaged.",
        "Channels have means of their own, and that spread counts too: one deviation over all elements.",
        "what would your function miss if each channel were constant, but all different?",
    ),
    Mistake(
        "sample by sample, averaged",
        lambda latents: 1 / float(latents.flatten(1).std(dim=1).mean()),
        "You measured every sample alone and averaged.",
        "The spread between samples counts too: one deviation over all elements at once.",
        "does a mean of deviations equal the deviation of all?",
    ),
    Mistake(
        "first sample only",
        lambda latents: 1 / float(latents[0].std()),
        "You measured the first sample only.",
        "One clip may be calm and the next one wild; the number is for all of them.",
        "how many latents does one number have to serve?",
    ),
    Mistake(
        "one per channel",
        lambda latents: 1 / latents.std(dim=(0, 2, 3)),
        "You return a scale for each channel.",
        "Some models do that; here a single number serves the whole latent space.",
        "over which axes did you measure, and over which should you?",
    ),
    Mistake(
        "largest value",
        lambda latents: 1 / float(latents.abs().max()),
        "You divide by the largest absolute value.",
        "A maximum hangs on one outlier and grows with the number of samples; the deviation does not.",
        "what happens to your scale when one freak latent joins the batch?",
    ),
)
