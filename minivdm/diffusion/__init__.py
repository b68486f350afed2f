"""How a video is destroyed, and how it is sampled back: schedules, DDPM, DDIM, DPM-Solver++, guidance."""
