"""Golden files of Open-Sora 1.2's rectified flow and frame masks, computed with loops from the written rules.

Everything is float64, one film and one frame at a time; nothing of ours.
"""

import json
import math

import torch
from safetensors.torch import save_file

FLOW = "hpcaitech/Open-Sora v1.2 opensora/schedulers/rf (RFLOW, RFlowScheduler, timestep_transform)"
MASKS = "hpcaitech/Open-Sora v1.2 opensora/utils/train_utils.py MaskGenerator; opensora/utils/inference_utils.py"


def save(path, reference, config, cases, tensors):
    names = {"config": json.dumps(config), "cases": json.dumps(cases), "reference": reference}
    floats = {name: value.float() if value.dtype == torch.float64 else value for name, value in tensors.items()}
    save_file({name: value.contiguous().clone() for name, value in floats.items()}, path, names)


def moved(t, height, width, frames, image, scale=1.0):
    """A time in [0, 1000], a number, moved as training and sampling of 1.2 do."""
    length = 1 if image else frames // 17 * 5
    ratio = math.sqrt(height * width / 512**2) * math.sqrt(length) * scale
    below = 1 + (ratio - 1) * t / 1000
    return ratio * (t / 1000) / below * 1000 if below else math.nan


def noised(x0, noise, t):
    return (1 - t / 1000) * x0 + t / 1000 * noise


def network(x, t, y, open_frames=None):
    """The closed form of these files, for one film x (C, T, H, W)."""
    u, marks = t / 1000, 0.0 if open_frames is None else torch.tensor(open_frames).double()[None, :, None, None]
    return 0.7 * torch.cos(x + 2 * u) - 0.3 * x * u + y.mean() * (1 + u) + 0.05 * marks


def walk(z, y, y_null, scale, times, ratios=None, noises=None):
    """One film through all steps: (result, what the network saw, which frames were open)."""
    seen, marks, before = [], [], None if ratios is None else [r == 1 for r in ratios]
    for i, (t, then) in enumerate(zip(times, [*times[1:], 0.0], strict=True)):
        now = None
        if ratios is not None:
            now, z = [r * 1000 >= t for r in ratios], z.clone()
            for f in range(len(ratios)):
                if now[f] and not before[f]:
                    z[:, f] = noised(z[:, f], noises[i][:, f], t)
            before = now
            marks.append(now)
        seen.append(z)
        v_null = network(z, t, y_null, now)
        v = v_null + scale * (network(z, t, y, now) - v_null)
        after = z + v * (t - then) / 1000
        if now is not None:
            after = torch.stack([after[:, f] if now[f] else z[:, f] for f in range(len(now))], dim=1)
        z = after
    return z, seen, marks


def write_flow(path, seed, shape, steps, cfg_scale, meta, mask, grid_frames, grid_res, short, scales):
    """A file in the format of os12_rflow.safetensors; `short` are the clips whose length collapses."""
    config = {"seed": seed, "shape": shape, "steps": steps, "cfg_scale": cfg_scale, "transform_scale": 0.5}
    config |= {"meta": meta, "mask": mask, "grid_frames": grid_frames, "grid_res": grid_res}
    g = torch.Generator().manual_seed(seed)
    randn = lambda *size: torch.randn(size, generator=g).double()  # noqa: E731
    batch, channels, frames = shape[:3]
    times = (torch.rand(batch, generator=g) * 1000).double()

    t = torch.cat([torch.rand(6, generator=g) * 1000, torch.tensor([0.0, 1000.0])]).double()
    tensors, cases = {"transform/in/t": t, "transform_degenerate/in/t": t}, {"transform": {}}
    cases["transform_degenerate"] = {"nonfinite_ok": True, "frames": short}
    for case, lengths in (("transform", grid_frames), ("transform_degenerate", short)):
        for scale in scales:
            rows = [[[moved(s, h, w, n, n == 1, scale) for s in t.tolist()] for n in lengths] for h, w in grid_res]
            tensors[f"{case}/out/table_scale{scale}"] = torch.tensor(rows, dtype=torch.float64)

    def add(case, inputs, outputs):
        cases[case] = {}
        tensors.update({f"{case}/in/{name}": value for name, value in inputs.items()})
        tensors.update({f"{case}/out/{name}": value for name, value in outputs.items()})

    x0, noise, whole = randn(*shape), randn(*shape), torch.arange(batch) * 313 % 1000
    outs = {}
    for name, given in (("x_t", times), ("x_t_int", whole)):
        outs[name] = torch.stack([noised(x0[b], noise[b], given[b].item()) for b in range(batch)])
    add("add_noise", {"x0": x0, "noise": noise, "t": times, "t_int": whole}, outs)
    x, kept = randn(*shape), torch.rand(batch, frames, generator=g) > 0.4
    kept[:, 0] = True
    means = [torch.stack([x[b, :, f].flatten() for f in range(frames) if kept[b, f]]).mean() for b in range(batch)]
    plain = torch.stack([x[b].mean() for b in range(batch)])
    add("mean_flat", {"x": x, "mask": kept}, {"plain": plain, "masked": torch.stack(means)})

    for case in ("losses", "losses_masked"):
        x0, noise, y, losses, states = randn(*shape), randn(*shape), randn(batch, 1, 3, 4), [], []
        for b in range(batch):
            open_frames = kept[b].tolist() if "masked" in case else None
            x = noised(x0[b], noise[b], times[b].item())
            counted = [f for f in range(frames) if open_frames is None or open_frames[f]]
            x = torch.stack([x[:, f] if f in counted else x0[b, :, f] for f in range(frames)], dim=1)
            error = (network(x, times[b].item(), y[b], open_frames) - (x0[b] - noise[b])) ** 2
            losses.append(error[:, counted].mean())
            states.append(x)
        inputs = {"x0": x0, "t": times, "noise": noise, "y": y} | ({"mask": kept} if "masked" in case else {})
        add(case, inputs, {"loss": torch.stack(losses), "x_t": torch.stack(states), "t_model": times})

    for ending in ("", "_discrete", "_transform", "_mask", "_mask_transform", "_guidance1"):
        z, y, y_null = randn(*shape), randn(batch, 1, 3, 4), randn(batch, 1, 3, 4)
        noises, scale = randn(steps, *shape), 1.0 if "guidance1" in ending else cfg_scale
        films, stamps = [], []
        for b in range(batch):
            clock = [(1 - i / steps) * 1000 for i in range(steps)]
            clock = [float(round(t)) for t in clock] if "discrete" in ending else clock
            if "transform" in ending:
                image, size = meta["num_frames"][0] == 1, (meta["height"][b], meta["width"][b], meta["num_frames"][b])
                clock = [moved(t, *size, image) for t in clock]
            ratios = mask[b] if "mask" in ending else None
            films.append(walk(z[b], y[b], y_null[b], scale, clock, ratios, noises[:, b]))
            stamps.append(clock)
        outs = {"z": torch.stack([film[0] for film in films])}
        outs["traj_in"] = torch.stack([torch.stack(film[1]) for film in films], dim=1)
        outs["t"] = torch.tensor(stamps, dtype=torch.float64).T.repeat(1, 2)
        inputs = {"z": z, "y": y, "y_null": y_null}
        if "mask" in ending:
            inputs |= {"mask": torch.tensor(mask), "noises": noises}
            outs["x_mask"] = torch.tensor([film[2] for film in films]).transpose(0, 1).repeat(1, 2, 1)
        add(f"sample{ending}", inputs, outs)
    save(path, FLOW, config, cases, tensors)


def snapped(start, length, align):
    if start < 0:
        start += length
    if align is None:
        return start
    blocks, rest = divmod(start, align)
    return (blocks + (rest > align / 2 and blocks < length // align - 1)) * align


def strategy_by_hand(z, references, strategy, loop, align):
    """z (C, T, H, W) with the references in it, and the edit ratio of every frame."""
    z, ratios = z.clone(), [1.0] * z.shape[1]
    for entry in strategy.split(";") if strategy else []:
        fields = entry.split(",")
        fields += ["0", "0", "0", "0", "1", "0"][len(fields) :]
        if int(fields[0]) != loop:
            continue
        reference = references[int(fields[1])]
        source = snapped(int(fields[2]), reference.shape[1], align)
        target = snapped(int(fields[3]), z.shape[1], align)
        for k in range(int(fields[4])):
            if source + k < reference.shape[1] and target + k < z.shape[1]:
                z[:, target + k] = reference[:, source + k]
                ratios[target + k] = float(fields[5])
    return z, ratios


def possible_masks(kind, frames):
    """Every mask that the generator of 1.2 can draw, sorted: 1 is generated."""
    if kind == "identity":
        return [[1] * frames]
    if kind == "intepolate":
        return sorted([int(k % 2 != first) for k in range(frames)] for first in (0, 1))
    found = set()
    for size in [1] if kind.startswith("image") else range(1, frames // 4 + 1):
        place = kind.split("_", 1)[1]
        ends = {"head": [(0,)], "tail": [(frames - size,)], "head_tail": [(0, frames - size)]}
        for starts in ends.get(place, [(start,) for start in range(frames - size + 1)]):
            found.add(tuple(int(not any(s <= k < s + size for s in starts)) for k in range(frames)))
    return sorted(map(list, found))


PLACES = ("head", "tail", "head_tail", "random")
KINDS = ["identity", "intepolate", *(f"{what}_{place}" for what in ("image", "quarter") for place in PLACES)]


def write_masks(path, seed, frames, strategies, loop, align, size, kinds=KINDS):
    """A file in the format of os12_masks.safetensors; `size` is (channels, height, width)."""
    config = {"seed": seed, "T": frames, "strategies": strategies, "loop": loop, "align": align}
    g = torch.Generator().manual_seed(seed)
    channels, height, width = size
    lengths = {"ref0": 9, "ref1": 14, "z": frames}
    clips = {n: torch.randn(channels, k, height, width, generator=g).double() for n, k in lengths.items()}
    tensors = {f"strategy/in/{name}": clips[name] for name in ("ref0", "ref1")} | {"strategy/in/z": clips["z"][None]}
    for k, strategy in enumerate(strategies):
        for now in loop:
            for to in align:
                z, ratios = strategy_by_hand(clips["z"], [clips["ref0"], clips["ref1"]], strategy, now, to)
                tensors[f"strategy/out/s{k}_loop{now}_align{to}_z"] = z[None]
                tensors[f"strategy/out/s{k}_loop{now}_align{to}_mask"] = torch.tensor([ratios])
    nearest = [[snapped(value, end, 5) for value in range(40)] for end in (10, 15, 20, 33)]
    tensors["nearest/out/table"] = torch.tensor(nearest)
    for kind in kinds:
        tensors[f"gen_{kind}/out/support"] = torch.tensor(possible_masks(kind, frames), dtype=torch.int32)
        tensors[f"gen_{kind}/out/single_frame"] = torch.tensor([True])
    cases = {"strategy": {}, "nearest": {}} | {f"gen_{kind}": {} for kind in kinds}
    save(path, MASKS, config, cases, tensors)
