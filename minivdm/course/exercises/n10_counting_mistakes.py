"""Wrong answers that newcomers really give about bytes, the order of clips and the first broken layer."""

import torch

from minivdm.course.exercise import Mistake
from minivdm.training.randomness import stream_seed


def _bytes(trained, frozen, kept, batch, copies=5, width=4):
    return width * (copies * trained + frozen + batch * kept)


MEMORY = (
    Mistake(
        "numbers, not bytes",
        lambda *args: _bytes(*args, width=1),
        "You counted numbers, not bytes: a quarter of what is asked for.",
        "A number in float32 takes 32 bits, four bytes.",
        "how many bytes are a million weights in float32?",
    ),
    Mistake(
        "half precision",
        lambda *args: _bytes(*args, width=2),
        "You count two bytes per number.",
        "This training is in float32. Even in mixed precision weights and averages stay so.",
        "how many bits has a float32?",
    ),
    Mistake(
        "bits",
        lambda *args: _bytes(*args, width=32),
        "You counted bits.",
        "Memory is sold in bytes of eight bits.",
        "how many bytes are a million weights in float32?",
    ),
    Mistake(
        "weights only",
        lambda *args: _bytes(*args, copies=1),
        "You count every trained weight once.",
        "That is enough to use a network. To train it, each weight has four companions.",
        "what does Adam remember of each weight, and who else keeps a copy?",
    ),
    Mistake(
        "no optimizer",
        lambda *args: _bytes(*args, copies=3),
        "Adam's two averages are missing.",
        "It remembers the mean of each weight's gradients and the mean of their squares: two more numbers per weight.",
        "which numbers does one step of Adam need from the step before?",
    ),
    Mistake(
        "one copy short",
        lambda *args: _bytes(*args, copies=4),
        "You count four numbers per trained weight; there are five.",
        "Weight, gradient, Adam's mean, Adam's mean square, moving average.",
        "which of these five is missing from your sum?",
    ),
    Mistake(
        "frozen counted as trained",
        lambda trained, frozen, kept, batch: _bytes(trained + frozen, 0, kept, batch),
        "You give the frozen network gradients and averages.",
        "Nothing of it changes, so nothing is needed but its weights.",
        "what would an optimizer do with a network that may not change?",
    ),
    Mistake(
        "frozen forgotten",
        lambda trained, frozen, kept, batch: _bytes(trained, 0, kept, batch),
        "The frozen network's weights are missing.",
        "It does not learn, but it has to be in memory to be asked.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "one clip's activations",
        lambda trained, frozen, kept, batch: _bytes(trained, frozen, kept, 1),
        "Your activations do not grow with the batch.",
        "Every clip leaves its own results behind for the backward pass.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "all times the batch",
        lambda trained, frozen, kept, batch: 4 * batch * (5 * trained + frozen + kept),
        "Your weights grow with the batch.",
        "All clips of a batch go through one and the same network.",
        "how many copies of the network does a batch of 16 need?",
    ),
)


def _clip(k, num_clips, seed, epoch_of=None, seed_of=None):
    epoch, position = divmod(k, num_clips)
    number = stream_seed(seed, "order", epoch) if seed_of is None else seed_of(seed, epoch, k)
    order = torch.randperm(num_clips, generator=torch.Generator().manual_seed(number))
    return order[position].item(), epoch if epoch_of is None else epoch_of(epoch, k)


def _drawn(k, num_clips, seed):
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", k // num_clips))
    return torch.randint(num_clips, (num_clips,), generator=generator)[k % num_clips].item(), k // num_clips


def _walked(k, num_clips, seed):
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", 0))
    for _ in range(k // num_clips + 1):
        order = torch.randperm(num_clips, generator=generator)
    return order[k % num_clips].item(), k // num_clips


ORDER = (
    Mistake(
        "every epoch alike",
        lambda *args: _clip(*args, seed_of=lambda seed, epoch, k: stream_seed(seed, "order", 0)),
        "Your first epoch is right; all others repeat its order.",
        "The same clips would meet in the same batches for ever.",
        "on which two numbers should an epoch's shuffle depend?",
    ),
    Mistake(
        "a shuffle for every clip",
        lambda *args: _clip(*args, seed_of=lambda seed, epoch, k: stream_seed(seed, "order", k)),
        "You shuffle anew for every clip.",
        "Then some clips come twice in an epoch and others never: it is no shuffle any more.",
        "which clips share one permutation?",
    ),
    Mistake(
        "seed plus epoch",
        lambda *args: _clip(*args, seed_of=lambda seed, epoch, k: seed + epoch),
        "You seed with a sum of seed and epoch.",
        "So the second epoch of seed 0 is the first of seed 1, and two runs that should differ overlap. `stream_seed` "
        "mixes the numbers.",
        "which (seed, epoch) have the same sum as (3, 1)?",
    ),
    Mistake(
        "seed only",
        lambda *args: _clip(*args, seed_of=lambda seed, epoch, k: seed),
        "You seed with the run's seed alone.",
        "Every epoch then has one and the same order, and it is also that of everybody else who uses this seed.",
        "on which two numbers should an epoch's shuffle depend?",
    ),
    Mistake(
        "the noise's stream",
        lambda *args: _clip(*args, seed_of=lambda seed, epoch, k: stream_seed(seed, "noise", epoch)),
        "You took the stream of the noise.",
        'Each use has a stream of its own, so that order and noise never share a draw: here it is "order".',
        "what does the second argument of `stream_seed` say?",
    ),
    Mistake(
        "a generator that walks on",
        _walked,
        "Right in the first epoch; later ones come from a generator that has shuffled before.",
        "It gives an order too, but one must shuffle through all earlier epochs to get there.",
        "how long does the first clip of epoch 1000 take?",
    ),
    Mistake(
        "not shuffled",
        lambda k, num_clips, seed: (k % num_clips, k // num_clips),
        "Your clips come in the order of the folder.",
        "A folder is often sorted, so a batch would see nothing but red willows.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "drawn with replacement",
        _drawn,
        "You draw each clip by itself.",
        "In an epoch some clips come several times and a third of them never. A permutation has each of them once.",
        "how many different clips do you get in one epoch?",
    ),
    Mistake(
        "epochs from one",
        lambda *args: _clip(*args, epoch_of=lambda epoch, k: epoch + 1),
        "The index is right, but you count epochs from 1.",
        "Everything here is counted from 0: clip 0 is in epoch 0.",
        "what is ⌊k / num_clips⌋ for k = 0?",
    ),
    Mistake(
        "k for the epoch",
        lambda *args: _clip(*args, epoch_of=lambda epoch, k: k),
        "The index is right, but the second value is k itself.",
        "Asked for is how often the whole set has been seen before.",
        "in which epoch is clip 29 of a set of 61?",
    ),
)


def _listen(model, x, broken=lambda out: not out.isfinite().all(), choose=lambda found: found[0], remove=True, none=-1):
    found, hooks = [], []
    for number, module in enumerate(model.modules()):

        def look(module, inputs, output, number=number):
            if broken(output):
                found.append(number)

        hooks.append(module.register_forward_hook(look))
    model(x)
    for hook in hooks if remove else ():
        hook.remove()
    return choose(found) if found else none


def _walk_the_list(model, x):
    for number, module in enumerate(model.modules()):
        if not list(module.children()):
            x = module(x)
            if not x.isfinite().all():
                return number
    return -1


BROKEN = (
    Mistake(
        "hooks left",
        lambda *args: _listen(*args, remove=False),
        "The number is right, but your hooks stay in the network.",
        "Each later step calls them, and the next search adds as many again: `register_forward_hook` returns a handle "
        "that has `remove()`.",
        "how many hooks are there after ten calls?",
    ),
    Mistake(
        "lowest number",
        lambda *args: _listen(*args, choose=min),
        "You return the lowest number that broke: a box around the culprit.",
        "A box finishes after what is in it, so its output is broken as well. What counts is who reported first.",
        "in which order do a box and the layers in it finish?",
    ),
    Mistake(
        "the last one",
        lambda *args: _listen(*args, choose=lambda found: found[-1]),
        "You return the last module that reported.",
        "Infinities are passed on, up to the whole network: the last to report is the least interesting.",
        "who must have broken first, for all the others to break?",
    ),
    Mistake(
        "NaN only",
        lambda *args: _listen(*args, broken=lambda out: bool(out.isnan().any())),
        "You look for NaN only.",
        "It often begins with an infinity; a NaN is what ∞ − ∞ becomes some layers later.",
        "what is 1e30 * 1e30 in float32, and is it a NaN?",
    ),
    Mistake(
        "infinity only",
        lambda *args: _listen(*args, broken=lambda out: bool(out.isinf().any())),
        "You look for infinities only.",
        "The logarithm of a negative number is a NaN at once.",
        "what do both have in common that `isfinite` asks for?",
    ),
    Mistake(
        "all broken",
        lambda *args: _listen(*args, broken=lambda out: not out.isfinite().any()),
        "You report a layer only when everything in its output is broken.",
        "One bad number is enough to spoil the loss.",
        "does one infinity in a million numbers reach the loss?",
    ),
    Mistake(
        "zero for none",
        lambda *args: _listen(*args, none=0),
        "You say 0 when all is well, but 0 is the whole network's number.",
        "−1 is nobody's.",
        "how would you tell a healthy network from one that breaks in module 0?",
    ),
    Mistake(
        "layers in the order of the list",
        _walk_the_list,
        "You call the layers one after the other yourself, in the order in which they are listed.",
        "A network may run them in another order, or one twice. Only its own `forward` knows: let it run, and listen.",
        "what does `model(x)` do that your loop does not know?",
    ),
)
