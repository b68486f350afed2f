"""Right answers to the exercises of lesson 09, written in another way: loops, other algebra, other idioms."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange


def text_mask(lengths, max_length):
    mask = torch.zeros(len(lengths), max_length, dtype=torch.bool)
    for row, length in zip(mask, lengths.tolist(), strict=True):
        row[:length] = True
    return mask


def text_mask_ones(lengths, max_length):
    return torch.ones(len(lengths), max_length).cumsum(1) <= lengths.unsqueeze(1)


def relative_position_bias(query_length, key_length, table, max_distance):
    """As the original computes it, in float32 and counting from query − key."""
    buckets = len(table) // 2
    n = torch.arange(query_length)[:, None] - torch.arange(key_length)[None]
    side, n = (n < 0).long() * buckets, n.abs()
    exact = buckets // 2
    large = exact + (torch.log(n.float() / exact) / math.log(max_distance / exact) * (buckets - exact)).long()
    bucket = side + torch.where(n < exact, n, torch.min(large, torch.full_like(large, buckets - 1)))
    return F.embedding(bucket, table).permute(2, 0, 1)


def relative_position_bias_loop(query_length, key_length, table, max_distance):
    def bucket(offset):
        half, n = len(table) // 2, abs(offset)
        exact = half // 2
        far = exact + int(math.log(max(n, exact) / exact) / math.log(max_distance / exact) * (half - exact))
        return (n if n < exact else min(far, half - 1)) + (half if offset > 0 else 0)

    rows = [[bucket(key - query) for key in range(key_length)] for query in range(query_length)]
    return torch.stack([table[:, head][torch.tensor(rows)] for head in range(table.shape[1])])


def span_corruption(tokens, starts, lengths, sentinels):
    """From the last span to the first, so that nothing moves that is still to be cut."""
    inputs, targets = tokens.tolist(), [sentinels[len(starts)]]
    for start, length, sentinel in reversed(list(zip(starts, lengths, sentinels, strict=False))):
        targets = [sentinel, *inputs[start : start + length], *targets]
        inputs[start : start + length] = [sentinel]
    return torch.tensor(inputs), torch.tensor(targets)


def span_corruption_mask(tokens, starts, lengths, sentinels):
    """Token by token."""
    of_span = {
        start + place: span
        for span, (start, length) in enumerate(zip(starts, lengths, strict=True))
        for place in range(length)
    }
    inputs, targets, last = [], [], None
    for place, token in enumerate(tokens.tolist()):
        span = of_span.get(place)
        if span is None:
            inputs.append(token)
        elif span != last:
            inputs.append(sentinels[span])
            targets.append(sentinels[span])
        if span is not None:
            targets.append(token)
        last = span
    return torch.LongTensor(inputs), torch.LongTensor([*targets, sentinels[-1]])


def binding_errors(asked, seen):
    def is_of_another(place, attribute):
        wanted, found = asked[place][attribute], seen[place][attribute]
        elsewhere = {shell[attribute] for there, shell in asked.items() if there != place}
        return found in elsewhere - {wanted}

    there = asked.keys() & seen.keys()
    return len([place for place in there if is_of_another(place, 0) or is_of_another(place, 1)])


def binding_errors_loop(asked, seen):
    mixed_up = set()
    for place, (colour, shape) in asked.items():
        for there, (other_colour, other_shape) in asked.items():
            if there == place or place not in seen:
                continue
            seen_colour, seen_shape = seen[place]
            if seen_colour == other_colour != colour or seen_shape == other_shape != shape:
                mixed_up.add(place)
    return torch.tensor(len(mixed_up))


def masked_cross_attention(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])


def masked_cross_attention_loop(q, k, v, mask):
    """Prompt by prompt, on its real tokens alone: that is what a mask does."""
    films = []
    for one_q, one_k, one_v, real in zip(q, k, v, mask, strict=True):
        scores = torch.einsum("hnd,hld->hnl", one_q, one_k[:, real]) / math.sqrt(q.shape[-1])
        films.append(scores.softmax(-1) @ one_v[:, real])
    return torch.stack(films)


def masked_cross_attention_renormalised(q, k, v, mask):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp() * mask[:, None, None]
    return (weights / weights.sum(-1, keepdim=True)) @ v


def masked_cross_attention_large(q, k, v, mask):
    bias = (1.0 - mask.to(q.dtype)[:, None, None]) * torch.finfo(q.dtype).min
    return torch.softmax(q @ k.mT * q.size(-1) ** -0.5 + bias, dim=-1) @ v


def null_dropout(y, null, drop):
    out = y.clone()
    out[drop] = null
    return out


def null_dropout_numbers(y, null, drop):
    share = rearrange(drop.to(y.dtype), "b -> b 1 1")
    return share * null + (1 - share) * y


def null_dropout_loop(y, null, drop):
    return torch.stack([null if dropped else caption for caption, dropped in zip(y, drop.tolist(), strict=True)])


def image_guidance(cond, image_only, uncond, text_scale, image_scale):
    return (1 - image_scale) * uncond + (image_scale - text_scale) * image_only + text_scale * cond


def image_guidance_lerp(cond, image_only, uncond, text_scale, image_scale):
    return torch.lerp(uncond, image_only, image_scale).add(cond - image_only, alpha=text_scale)


def oscillate(scale, step, first=10):
    if step >= first and step % 2:
        return 1.0
    return scale


def oscillate_tensor(scale, step, first=10):
    rests = (torch.tensor(step) >= first) & (torch.tensor(step) % 2 == 1)
    return torch.where(rests, 1.0, scale)


def freeze_frames(z, z_ref, mask):
    out = z.clone()
    for film in range(z.shape[0]):
        for frame in range(z.shape[2]):
            if mask[film, frame]:
                out[film, :, frame] = z_ref[film, :, frame]
    return out


def freeze_frames_numbers(z, z_ref, mask):
    given = rearrange(mask, "b t -> b 1 t 1 1").to(z.dtype)
    return given * z_ref + (1 - given) * z


def freeze_frames_indexed(z, z_ref, mask):
    out = rearrange(z, "b c t h w -> b t c h w").clone()
    out[mask] = rearrange(z_ref, "b c t h w -> b t c h w")[mask]
    return rearrange(out, "b t c h w -> b c t h w")


@torch.no_grad()
def generate_batched(prompt, parts, steps, scale, seed):
    """Both texts in one call, times from a row of ends, steps measured in t."""
    y, mask = (torch.cat(pair) for pair in zip(parts.encode([prompt]), parts.null(1), strict=True))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(parts.latent_shape, generator=generator).unsqueeze(0)
    times = torch.linspace(1000, 0, steps + 1)
    for t, then in zip(times[:-1], times[1:], strict=True):
        cond, uncond = parts.velocity(torch.cat([z, z]), t.repeat(2), y, mask).chunk(2)
        z += torch.lerp(uncond, cond, scale) * (t - then) / 1000
    return torch.clamp(parts.decode(z), min=-1, max=1)


def generate_float64(prompt, parts, steps, scale, seed):
    """Null first, in wide numbers, looking at every film on the way."""
    (none, none_mask), (y, mask) = parts.null(3), parts.encode((prompt, ""))
    g = torch.Generator("cpu")
    g.manual_seed(seed)
    z = torch.randn(1, *parts.latent_shape, generator=g).double()
    film, t = None, torch.tensor([1000.0], dtype=torch.float64)
    while film is None or t > 1e-6:
        v_null = parts.velocity(z, t, none[:1], none_mask[:1])
        v = parts.velocity(z, t, y[:1], mask[:1])
        z = z + (scale * v + (1 - scale) * v_null) / steps
        t = t - 1000 / steps
        film = parts.decode(z)
    return film.minimum(torch.ones(())).maximum(-torch.ones(()))


def generate_thrifty(prompt, parts, steps, scale, seed):
    """One prediction where one is enough."""
    z = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))
    sides = [side for side in ((parts.encode([prompt]), scale), (parts.null(1), 1 - scale)) if side[1] != 0]
    for left in range(steps, 0, -1):
        t = z.new_tensor([1000 * left / steps])
        z = z + sum(weight * parts.velocity(z, t, *text) for text, weight in sides) / steps
    return parts.decode(z).clip(-1, 1)


ALTERNATIVES = {
    "09.text_mask": [text_mask, text_mask_ones],
    "09.relative_position_bias": [relative_position_bias, relative_position_bias_loop],
    "09.span_corruption": [span_corruption, span_corruption_mask],
    "09.binding_errors": [binding_errors, binding_errors_loop],
    "09.masked_cross_attention": [
        masked_cross_attention,
        masked_cross_attention_loop,
        masked_cross_attention_renormalised,
        masked_cross_attention_large,
    ],
    "09.null_dropout": [null_dropout, null_dropout_numbers, null_dropout_loop],
    "09.image_guidance": [image_guidance, image_guidance_lerp],
    "09.oscillate": [oscillate, oscillate_tensor],
    "09.freeze_frames": [freeze_frames, freeze_frames_numbers, freeze_frames_indexed],
    "09.generate": [generate_batched, generate_float64, generate_thrifty],
}

# Mutants that compute the same thing. Bucket b − half is the row that b + half is, counted from the table's end; at
# `exact` the far branch gives `exact` too, and below it nobody looks at it; off the edges float32 is precise enough.
# Step 10 is even and guides in any case.
EQUIVALENT = {
    "09.relative_position_bias": r"far\) - half|distance <= exact|clamp\(min=[02]\)|clamp\(min=1\) /",
    "09.oscillate": r"first=11",
}
