"""Symptoms of autoencoders, and of a network that works on their latents: lessons 03 to 05, 07, 08 and 09."""

from minivdm.course.atlas.entry import Entry

LATENTS = (
    Entry(
        "yellow-for-green",
        "Wrong colours, lumps, and ghosts at the edge",
        "03.latent_scale",
        "the deviation itself",
        "vae_stages",
        "Green comes out yellow and white, the shell is a lump, and the dark has ghosts in it.",
        "The latents were brought to size 1 with the right scale, and brought back with its reciprocal. The decoder "
        "gets latents far larger than any that it has learnt to read.",
        "left: a yellow and white lump; right: a green palm opens on a night sky",
    ),
    Entry(
        "maze",
        "A rainbow maze",
        "03.reparameterize",
        "logvar taken for σ",
        "vae_stages",
        "Bright worms in all colours, another maze in every frame, whatever the clip.",
        "Where the encoder is sure, logvar is a large negative number, and the noise is multiplied by just that. What "
        "reaches the decoder is noise alone.",
        "left: a maze of bright colours, changing in every frame; right: a green palm opens on a night sky",
    ),
    Entry(
        "two-films",
        "Two films cut into each other",
        "07.frames_to_batch",
        "time before batch",
        "vae_stages",
        "Frames of two films take turns, and neither gets beyond its middle.",
        "The pictures were ordered (t b) on the way into the batch, and read as (b t) on the way out. The shapes are "
        "right, and with a batch of one nobody would ever notice.",
        "left: frames of a green and of a red and blue firework take turns; right: the green one alone",
    ),
    Entry(
        "stutter",
        "The film jumps back and forth",
        "04.depth_to_time",
        "time inside",
        "vae_stages",
        "Every frame is nearly right, in the wrong order: burst, rocket, burst.",
        "A latent frame becomes neighbouring frames. Here the first of every group come first, then the second ones: "
        "each step up in length shuffles the film like a pack of cards.",
        "left: burst and rocket take turns; right: a rocket rises, then a green palm opens",
    ),
    Entry(
        "the-future-shows",
        "A faint double flies ahead",
        "04.causal_conv3d",
        "looks both ways",
        "vae_stages",
        "Not much: the rocket has a faint double, one frame ahead of it, and all is a little duller.",
        "Every convolution of the decoder finds the next frame where it has learnt to find the last but one. What "
        "saves the film is the straight way past the decoder, which looks at one frame only. (A decoder that was "
        "trained like this from the start has no sign at all, and still sees the future: that is why the exercise "
        "`04.is_causal` changes the future and compares the past.)",
        "left: a rocket with a faint double ahead of it, then a green palm; right: a rocket rises, then a green palm",
        unseen=True,
    ),
    Entry(
        "pulse",
        "The light goes out and comes back, again and again",
        "04.stream_conv3d",
        "starts afresh",
        "vae_stages",
        "The fireworks go dim at the beginning of every piece, down to their outline, and come back.",
        "Zeros are put in front of each piece, as if the film began there, and before a film begins there is night. "
        "The seams are where the pieces meet.",
        "left: a red and a blue firework go dim and come back several times; right: they open once and fade",
        also=(("04.stream_conv3d", "carries the old frames again"),),
    ),
    Entry(
        "worms",
        "Coloured worms on a dark sky",
        "09.generate",
        "walking backwards",
        "flow_stages",
        "Short bright strokes in all colours, other ones in every frame. This is what noise looks like through a "
        "decoder: where a network works on pixels it is snow, where it works on latents it is this.",
        "v points from noise to film. Subtracted, it leads from noise to more noise, and that is what the decoder is "
        "handed in the end.",
        "left: coloured strokes in every frame; right: a red peony opens on a night sky",
        also=(("08.euler_sample", "velocity subtracted"),),
    ),
    Entry(
        "worms-and-red",
        "Worms, and some of the right colour among them",
        "08.unpatchify",
        "patches interleaved",
        "flow_stages",
        "The same worms, and among them, towards the left, something red.",
        "Every token knows what belongs into its patch, but its numbers are strewn over the whole frame. Each step of "
        "the sampler sees the scattered film, takes it for noise, and answers to that.",
        "left: coloured strokes, some of them red; right: a red peony opens on a night sky",
    ),
    Entry(
        "black",
        "Black from the first frame to the last",
        "09.masked_cross_attention",
        "mask upside down",
        "flow_stages",
        "Nothing, not even the faint blue of the night: the numbers are NaN, which a picture cannot show.",
        "The text that stands for no text is all real tokens. Upside down, its mask forbids every one of them, and a "
        "softmax of nothing but −∞ is 0/0. One NaN, and by the next layer there is nothing else.",
        "left: black; right: a red peony opens on a night sky",
    ),
    Entry(
        "dull",
        "Dull colours, no glow",
        "09.generate",
        "latents clamped",
        "flow_stages",
        "The right film, as through sunglasses: the burst is dark red and its bright beginning is missing.",
        "Latents have no limits: of numbers with deviation 1 every third lies beyond ±1, and where something shines "
        "they lie far beyond. It is the pixels that must stay in [−1, 1].",
        "left: a dark red burst; right: a bright red peony",
    ),
    Entry(
        "soft",
        "Soft, with a hole in the middle",
        "08.euler_sample",
        "first velocity for all",
        "flow_stages",
        "The firework is there, blurred: a ball without sparks, which fades to a ring with nothing in it.",
        "Seen from pure noise, the best answer is the average of all films that fit the caption. Whoever walks that "
        "way to the end, without looking again, arrives at the average.",
        "left: a blurred red ball; right: a red peony of sparks",
    ),
    Entry(
        "pads-listened-to",
        "A firework with other sparks",
        "09.generate",
        "no masks at all",
        "flow_stages",
        "A good film of the caption. Beside the right one its sparks are a little other ones, and a little dimmer.",
        "All the pads behind the caption are heard as if they were words. Pad the same caption to another length, and "
        "it is another film: that is the test for this one.",
        "left and right: a red peony, on the left a little dimmer",
        unseen=True,
        also=(("09.masked_cross_attention", "no mask"),),
    ),
    Entry(
        "last-step-missing",
        "One step too few",
        "09.generate",
        "one step too few",
        "flow_stages",
        "The same film.",
        "A twentieth of the way is missing, so a twentieth of the noise is still in the latents, and a decoder of "
        "latents hardly minds. With 4 steps instead of 20 it would be a quarter.",
        "left and right: the same red peony",
        unseen=True,
    ),
    Entry(
        "too-little-noise-in-the-latent",
        "A VAE that draws with too little noise",
        "03.reparameterize",
        "variance for σ",
        "vae_stages",
        "The same film.",
        "This encoder is very sure: its σ is small and σ² is smaller still, so that there was hardly any noise to be "
        "seen in the first place.",
        "left and right: the same green palm",
        unseen=True,
    ),
    Entry(
        "split-in-vain",
        "A convolution that is split in vain",
        "05.chunked_conv3d",
        "output split only",
        "vae_stages",
        "The same film, number for number up to rounding.",
        "The answer is right, only the memory is not: each part reads the whole input, which is larger than the "
        "limit. On a large film it is here that it would stop.",
        "left and right: the same green palm",
        unseen=True,
    ),
)
