"""The models that people deploy, under short names, each with a pinned weight tag. Literal data; no library.

The geometry is stated here (`models` prints it at no cost), and a test checks it against the libraries.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Alias:
    """A short name for one model with one set of weights.

    Attributes:
        name: The alias.
        source: The library that has it.
        id: Its name there, without the weights.
        weights: The pinned tag of its pretrained weights.
        image_size: Side of its square input in pixels.
        patch_size: Side of a patch in pixels.
        tokens: Tokens that enter the first block: patches and prefix tokens.
        blocks: Number of transformer blocks.
        width: Channels per token.
        note: One line on what it is.
        tower: The tower exported unless `--tower` says otherwise.
    """

    name: str
    source: str
    id: str
    weights: str
    image_size: int
    patch_size: int
    tokens: int
    blocks: int
    width: int
    note: str
    tower: str = "image"


# name source id weights image_size patch_size tokens blocks width note
_TABLE = """
vit_digits exporter vit_digits embedded 32 4 65 8 80 scanned digits, 10 classes; ships in the package
vit_fashion exporter vit_fashion embedded 28 2 197 6 144 photos of clothing, 10 classes; ships in the package
clip_digits exporter clip_digits embedded 32 4 65 6 80 \
scanned digits, image embedding; --tower text for the texts; ships in the package
vit_ti16 timm vit_tiny_patch16_224 augreg_in21k_ft_in1k 224 16 197 12 192 ImageNet-1k classifier
vit_s16 timm vit_small_patch16_224 augreg_in21k_ft_in1k 224 16 197 12 384 ImageNet-1k classifier
vit_b16 timm vit_base_patch16_224 augreg_in21k_ft_in1k 224 16 197 12 768 ImageNet-1k classifier
vit_l16 timm vit_large_patch16_224 augreg_in21k_ft_in1k 224 16 197 24 1024 ImageNet-1k classifier
vit_l16_384 timm vit_large_patch16_384 augreg_in21k_ft_in1k 384 16 577 24 1024 ImageNet-1k classifier
vit_h14 timm vit_huge_patch14_clip_224 laion2b_ft_in12k_in1k 224 14 257 32 1280 \
ImageNet-1k classifier, pretrained as a CLIP tower (there is no AugReg ViT-H)
deit_ti16 timm deit_tiny_patch16_224 fb_in1k 224 16 197 12 192 ImageNet-1k classifier
deit_s16 timm deit_small_patch16_224 fb_in1k 224 16 197 12 384 ImageNet-1k classifier
deit_b16 timm deit_base_patch16_224 fb_in1k 224 16 197 12 768 ImageNet-1k classifier
deit_ti16_distilled timm deit_tiny_distilled_patch16_224 fb_in1k 224 16 198 12 192 class and distillation token
deit_s16_distilled timm deit_small_distilled_patch16_224 fb_in1k 224 16 198 12 384 class and distillation token
deit_b16_distilled timm deit_base_distilled_patch16_224 fb_in1k 224 16 198 12 768 class and distillation token
deit3_s16 timm deit3_small_patch16_224 fb_in22k_ft_in1k 224 16 197 12 384 LayerScale
deit3_b16 timm deit3_base_patch16_224 fb_in22k_ft_in1k 224 16 197 12 768 LayerScale
deit3_l16 timm deit3_large_patch16_224 fb_in22k_ft_in1k 224 16 197 24 1024 LayerScale
dinov2_s14 timm vit_small_patch14_dinov2 lvd142m 518 14 1370 12 384 features
dinov2_b14 timm vit_base_patch14_dinov2 lvd142m 518 14 1370 12 768 features
dinov2_l14 timm vit_large_patch14_dinov2 lvd142m 518 14 1370 24 1024 features
dinov2_s14_reg timm vit_small_patch14_reg4_dinov2 lvd142m 518 14 1374 12 384 features; 4 registers
dinov2_b14_reg timm vit_base_patch14_reg4_dinov2 lvd142m 518 14 1374 12 768 features; 4 registers
dinov2_l14_reg timm vit_large_patch14_reg4_dinov2 lvd142m 518 14 1374 24 1024 features; 4 registers
clip_vit_b32 open_clip ViT-B-32-quickgelu openai 224 32 50 12 768 image embedding; --tower text for the texts
clip_vit_b16 open_clip ViT-B-16-quickgelu openai 224 16 197 12 768 image embedding; --tower text for the texts
clip_vit_l14 open_clip ViT-L-14-quickgelu openai 224 14 257 24 1024 image embedding; --tower text for the texts
clip_vit_l14_336 open_clip ViT-L-14-336-quickgelu openai 336 14 577 24 1024 image embedding; --tower text for the texts
siglip_b16 open_clip ViT-B-16-SigLIP webli 224 16 196 12 768 \
image embedding, no prefix token; --tower text for the texts
"""


def _alias(row: str) -> Alias:
    name, source, identifier, weights, *numbers, note = row.split(maxsplit=9)
    image_size, patch_size, tokens, blocks, width = map(int, numbers)
    return Alias(
        name=name,
        source=source,
        id=identifier,
        weights=weights,
        image_size=image_size,
        patch_size=patch_size,
        tokens=tokens,
        blocks=blocks,
        width=width,
        note=note,
    )


ALIASES: dict[str, Alias] = {alias.name: alias for alias in map(_alias, _TABLE.strip().splitlines())}
