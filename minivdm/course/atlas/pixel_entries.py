"""Symptoms of networks that work on pixels: lessons 01, 02, 07 and 10."""

from minivdm.course.atlas.entry import Entry

PIXELS = (
    Entry(
        "snow",
        "Snow that never clears",
        "02.ddim_step",
        "t − 1 for t_prev",
        "unet_stages",
        "Grey snow in every frame, as on a television without an aerial. No firework at all.",
        "Each network call takes away the noise of a single step, while the next call is told that some fifty steps "
        "have passed. Nearly all of the noise is still there in the end.",
        "left: grey snow in every frame; right: a red peony opens on a night sky",
    ),
    Entry(
        "firework-behind-snow",
        "A firework behind coloured snow, far too bright",
        "02.q_sample",
        "no square roots",
        "ideal_stages",
        "The right firework, burnt white, behind snow in pure colours.",
        "Trained on x_t with too little noise in them, the network takes part of the clip for noise, and more noise "
        "than there is. The sampler, which is right, takes both away at the wrong strength. (This is the best network "
        "that such a training could give, for 24 clips; it is known in closed form, so nothing was trained here.)",
        "left: a white burst behind coloured snow; right: a green palm opens on a night sky",
    ),
    Entry(
        "confetti",
        "Confetti on black",
        "02.predict_v",
        "sign",
        "unet_stages",
        "Single coloured pixels on black, other ones in every frame.",
        "The network has learnt −v and says it faithfully; the sampler reads v. So every step leads away from the "
        "clip and adds noise where it should take it out.",
        "left: coloured pixels on black; right: a red peony opens on a night sky",
    ),
    Entry(
        "dim-snow",
        "Dim snow, though the loss is low",
        "10.ema_warmup",
        "no warm-up",
        "ideal_stages",
        "Faint snow on a dark sky. The loss, and films of the weights themselves, are fine.",
        "After 300 steps with decay 0.999, three quarters of the average still are the random weights of the "
        "beginning. (The training here is an ideal one, which has learnt everything in its first step: only the "
        "average is to blame.)",
        "left: faint snow on a dark sky; right: a red peony opens on a night sky",
    ),
    Entry(
        "grey-fog",
        "Grey fog",
        "02.p_sample",
        "√ᾱ for √α",
        "unet_stages",
        "An even grey with a fine grain, in every frame.",
        "Without noise, a clip should shrink along √ᾱ and come back along it; with this mean it does not come back. "
        "It is pulled to 0, the grey between black (−1) and white (1), and the network has never seen anything so "
        "grey.",
        "left: even grey; right: a red peony opens on a night sky",
    ),
    Entry(
        "fire-everywhere",
        "The whole sky is on fire",
        "01.alphas_cumprod",
        "square root taken",
        "unet_stages",
        "One red cloud fills the picture, in every frame.",
        "The sampler believes that far more of the clip is left in x_t than there is, and takes too little noise "
        "away. The network makes light of what stays.",
        "left: a red cloud fills every frame; right: a red peony opens on a night sky",
    ),
    Entry(
        "burnt",
        "White-hot, and fading too late",
        "07.guided",
        "uncond forgotten",
        "unet_stages",
        "The right firework, white in its middle and flat red around it, as if the camera had been open for too long.",
        "At scale 2 the whole prediction is doubled, and not only what the caption changes in it. A prediction twice "
        "as loud is a film twice as bright, and what is brighter than white is cut off.",
        "left: an overexposed red burst with a white middle; right: a red peony with single sparks",
    ),
    Entry(
        "melted",
        "Sparks melted together",
        "02.p_sample",
        "variance for its root",
        "unet_stages",
        "The firework is at its place, in its colour, and smooth: a ball and a ring instead of sparks.",
        "Too little fresh noise is added in each step, so x_t is cleaner than t says. The network takes fine detail "
        "for noise that ought to be there, and wipes it away.",
        "left: a smooth red ring; right: a red peony of single sparks",
    ),
    Entry(
        "another-film",
        "A fine film of something else",
        "07.guided",
        "cond and uncond swapped",
        "unet_stages",
        "The caption asks for red, high on the left. The film is cyan, and elsewhere.",
        "At scale 2 this is 2·uncond − cond: whatever the caption asks for is avoided. And cyan is what is farthest "
        "from red.",
        "left: a large cyan burst in the middle; right: a red peony high on the left",
        also=(
            ("07.guided", "away from the condition"),
            ("09.generate", "guidance exchanged"),
        ),
    ),
    Entry(
        "every-frame-alone",
        "Every frame is another firework",
        "07.focus_present_mask",
        "identity for all",
        "unet_stages",
        "Red sparks, at another place in every frame. Each frame is a fair picture; together they are no film.",
        "With this mask a frame sees only itself. Attention along time is the only place where frames of this network "
        "meet, so each one makes up a firework of its own.",
        "left: red sparks jump about from frame to frame; right: a red peony opens and fades",
    ),
    Entry(
        "never-clipped",
        "No clipping",
        "02.p_sample",
        "never clipped",
        "unet_stages",
        "The same film.",
        "This network predicts v, and its guesses of x0 stay in range by themselves. Clipping is for networks that "
        "predict the noise, whose guess at large t is divided by a number near 0.",
        "left and right: the same red peony",
        unseen=True,
    ),
)
