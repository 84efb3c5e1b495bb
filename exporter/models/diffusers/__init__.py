"""Models of diffusers: UNets and diffusion transformers, one step of denoising each."""
