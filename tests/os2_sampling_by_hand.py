"""Golden files of Open-Sora 2.0's sampling, computed with loops in float64 from the written rules; nothing of ours."""

import json
import math

import torch
from safetensors.torch import save_file

REFERENCE = "hpcaitech/Open-Sora main (v2.0) opensora/utils/sampling.py, opensora/utils/inference.py"
NAMED = [[192, 336], [336, 192], [256, 256], [224, 288], [160, 384], [576, 1024], [1024, 576], [768, 768], [656, 880]]
NAMED += [[496, 1184], [352, 640], [640, 352], [480, 480], [416, 544], [304, 736]]


def shifted(t, alpha):
    return alpha * t / (1 + (alpha - 1) * t)


def line(x, x1=256, y1=1.0, x2=4096, y2=3.0):
    slope = (y2 - y1) / (x2 - x1)
    return slope * x + (y1 - slope * x1)


def levels(steps, tokens, frames, alpha=None):
    alpha = line(tokens) * math.sqrt(frames) if alpha is None else alpha
    return [shifted(1 - k / steps, alpha) for k in range(steps + 1)]


def oscillation(scale, i, force=10):
    return scale if i < force or i % 2 == 0 else 1.0


def packed(x, p):
    b, c, t, h, w = x.shape
    rows, columns = h // p, w // p
    out = torch.zeros(b, t * rows * columns, c * p * p, dtype=x.dtype)
    for f in range(t):
        for r in range(rows):
            for k in range(columns):
                square = x[:, :, f, r * p : (r + 1) * p, k * p : (k + 1) * p]
                out[:, (f * rows + r) * columns + k] = square.flatten(1)
    return out


def given(kind, z, refs, causal=True):
    """Masks and latents, frame by frame."""
    b, _, frames, h, w = z.shape
    masks, latents = torch.zeros(b, 1, frames, h, w), torch.zeros_like(z)
    if frames == 1:
        return masks, latents
    places = []  # (frame of the clip, reference, its frame)
    if kind.startswith("v2v"):
        length = (16 if "easy" in kind else 8) + (1 if causal else 0)
        for k in range(length):
            if "head" in kind:
                places.append((k, refs[0], k))
            else:
                places.append((frames - 1 - k, refs[0], refs[0].shape[1] - 1 - k))
    if kind in ("i2v_head", "i2v_loop"):
        places.append((0, refs[0], 0))
    if kind in ("i2v_tail", "i2v_loop"):
        places.append((frames - 1, refs[-1], refs[-1].shape[1] - 1))
    for frame, reference, source in places:
        masks[:, :, frame] = 1
        latents[:, :, frame] = reference[:, source]
    return masks, latents


def network(x, t, txt, cond):
    return 0.7 * torch.cos(x + 2 * t) - 0.3 * x * t + txt.mean() + 0.2 * cond.mean(-1, keepdim=True)


def three_passes(x, txt, cond, frames, times, text_scale, image_scale, text_osci, image_osci, ramp):
    """One film (N, D), three texts, what is given (N, E): the states before every step, and the result."""
    states, steps = [], len(times) - 1
    per_frame = len(x) // frames
    for i in range(steps):
        states.append(x)
        g_txt = oscillation(text_scale, i) if text_osci else text_scale
        g_img = oscillation(image_scale, i) if image_osci else image_scale
        v1, v2, v3 = (network(x, times[i], txt[k], cond * (k < 2)) for k in range(3))
        moved = torch.zeros_like(x)
        for n in range(len(x)):
            g = g_img
            if ramp and g_img > 1:
                top, share = g_img + (1 - g_img) * i / steps, (n // per_frame) / max(frames - 1, 1)
                g = 1 + (top - 1) * share
            v = v3[n] + g * (v2[n] - v3[n]) + g_txt * (v1[n] - v2[n])
            moved[n] = x[n] + (times[i + 1] - times[i]) * v
        x = moved
    return torch.stack(states), x


def write(path, seed, latent, ps, steps, guidance, guidance_img, noise, sched, alpha, flow_shift, long, sanitize):
    """A file in the format of os2_sampling.safetensors; the arguments are its config."""
    config = {key: value for key, value in locals().items() if key != "path"}
    g = torch.Generator().manual_seed(seed)
    randn = lambda *size: torch.randn(size, generator=g, dtype=torch.float64)  # noqa: E731
    tensors, cases = {}, {}

    def add(case, inputs=None, outputs=None, **settings):
        cases[case] = settings
        tensors.update({f"{case}/in/{name}": value for name, value in (inputs or {}).items()})
        tensors.update({f"{case}/out/{name}": value for name, value in outputs.items()})

    b, c, frames, h, w = latent
    table = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    xs = [0, 77, 256, 3000, 20000]
    outs = {"lin_x": torch.tensor(xs), "lin_y": table([line(x) for x in xs])}
    outs["lin_y_custom"] = table([line(x, 100, 0.5, 900, 1.15) for x in xs])
    for n, tokens, f in sched:
        for ending, fixed in {"": None, "_noshift": 1.0, "_alpha": flow_shift}.items():
            outs[f"n{n}_seq{tokens}_f{f}{ending}"] = table(levels(n, tokens, f, fixed))
    add("schedule", outputs=outs)
    t = torch.rand(9, generator=g, dtype=torch.float64)
    add("time_shift", {"t": t}, {f"alpha{a}": shifted(t, a) for a in alpha})
    rows = [[oscillation(scale, i) for i in range(31)] for scale in (7.5, 3.0)]
    add("osci", outputs={"table": table(rows), "table_force7": table([oscillation(7.5, i, 7) for i in range(31)])})

    x = randn(*latent)
    outs = {"packed": packed(x, ps), "pixel_hw": torch.tensor([h // ps * 16, w // ps * 16])}
    add("pack", {"x": x}, outs | {"unpacked": x, "unpacked_nonmultiple": x})
    n, height, width, f, noise_seed, patch, channels = noise
    size = (n, channels, f, patch * math.ceil(height / 16), patch * math.ceil(width / 16))
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(noise_seed))
    add("noise", outputs={"noise": drawn})
    x, (rows, columns) = randn(b, 3, frames, h, w), (h // ps, w // ps)
    where = [[[f, r, k] for f in range(frames) for r in range(rows) for k in range(columns)]] * b
    add("ids", {"x": x}, {"img": packed(x, ps), "img_ids": table(where), "txt_ids": torch.zeros(b, 7, 3)})
    ref, mask, epsilon = randn(*latent), (randn(b, 1, frames, 1, 1) > 0).double(), randn(*latent)
    outs = {f"t{t}": mask * ((1 - (1 - 1e-5) * t) * ref + t * epsilon) for t in (0.0, 0.25, 0.9, 1.0)}
    add("ref_noise", {"ref": ref, "masks": mask, "noise": epsilon}, outs)
    up = [[(height + 15) // 16 * 16, (width + 15) // 16 * 16] for height, width in sanitize]
    add("sanitize", outputs={"hw": torch.tensor(up), "named": torch.tensor(NAMED)})

    for kind in ("t2v", "i2v_head", "i2v_tail", "i2v_loop"):
        z, refs = randn(*latent), [randn(c, 2, h, w), randn(c, 4, h, w)]
        masks, latents = given(kind, z, refs)
        outs = {"masks": masks, "masked_z": latents, "masks_single": torch.zeros(b, 1, 1, h, w)}
        add(f"cond_{kind}", {"z": z, "ref0": refs[0], "ref1": refs[1]}, outs)
    for kind in ("v2v_head", "v2v_tail", "v2v_head_easy", "v2v_tail_easy"):
        for causal in (False, True):
            z, ref = randn(*long), randn(long[1], 18, *long[3:])
            masks, latents = given(kind, z, [ref], causal)
            outs = {"masks": masks, "masked_z": latents}
            add(f"condlong_{kind}_causal{int(causal)}", {"z": z, "ref0": ref}, outs, causal=causal)

    times = levels(steps, rows * columns, frames)
    size = (rows * columns * frames, c * ps * ps)
    img, txt, states = randn(1, *size), randn(1, 3, 4), []
    x = img[0]
    for i in range(steps):
        states.append(x[None])
        x = x + (times[i + 1] - times[i]) * network(x, times[i], txt[0], torch.zeros(len(x), 1).double())
    outs = {"timesteps": table(times), "traj": torch.stack(states), "guidance_vec": table([guidance]), "img": x[None]}
    add("denoise_distill", {"img": img, "txt": txt}, outs)
    for text_osci, image_osci, ramp in ((0, 0, 0), (1, 1, 0), (1, 1, 1), (0, 0, 1), (0, 1, 1)):
        img, txt, refs = randn(1, *size), randn(3, 3, 4), [randn(c, 1, h, w)]
        masks, latents = given("i2v_head", torch.zeros(1, *latent[1:], dtype=torch.float64), refs)
        cond = packed(torch.cat([masks, latents], dim=1), ps)
        settings = {"text_osci": bool(text_osci), "image_osci": bool(image_osci), "scale_temporal_osci": bool(ramp)}
        states, x = three_passes(img[0], txt, cond[0], frames, times, guidance, guidance_img, *settings.values())
        outs = {"timesteps": table(times), "traj": states[:, None], "guidance_vec": table([guidance] * 3)}
        outs |= {"img": x[None], "cond": torch.cat([cond, cond, 0 * cond])}
        inputs = {"img": torch.cat([img] * 3), "txt": txt, "masks": masks, "masked_ref": latents}
        add(f"denoise_t{text_osci}_i{image_osci}_s{ramp}", inputs, outs, **settings)

    doubles = ("schedule/", "timesteps")  # recorded as float64; the rest is float32
    for name, value in tensors.items():
        value = value if any(part in name for part in doubles) or not value.is_floating_point() else value.float()
        tensors[name] = value.contiguous().clone()
    metadata = {"config": json.dumps(config), "cases": json.dumps(cases), "reference": REFERENCE}
    save_file(tensors, path, metadata)
