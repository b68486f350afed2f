"""From captions to what a denoiser can listen to."""
