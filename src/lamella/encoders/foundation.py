"""Cards of pathology foundation models: data, nothing but data.

Gated configurations could not be seen: those cards say so in `declared_by`. The tests build each network at a small
size and hold it against an independent implementation; docs/encoders.md says which.
"""

from dataclasses import replace
from functools import partial

from lamella.encoders.cards import EncoderCard
from lamella.encoders.transformer_cards import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Arguments,
    describe_transformer,
    say_source,
)

_README = "its README and loaders"
_GATED = "its README and loaders; its configuration is gated"
_SCALES = (0.25, 0.5, 1.0, 2.0)
_TO_224 = "resized to 224 px"

# A packed SwiGLU's hidden layer is two thirds of four widths, and packed it is twice that.
_SWIGLU: Arguments = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "mlp_ratio": 5.33334}
_SCALED: Arguments = {"init_values": 1e-5}

# What publishers have in common.
_mahmood = partial(replace, licence="cc-by-nc-nd-4.0", commercial_use=False, access="gated", declared_by=_GATED)
_paige = partial(replace, access="gated", declared_by=_GATED, tile_px=224, resizing=_TO_224)
_bioptimus = partial(
    replace,
    mean=(0.707223, 0.578729, 0.703617),
    std=(0.211883, 0.230117, 0.177517),
    trained_mpp=(0.5,),
    tile_px=224,
)
_owkin = partial(
    replace,
    licence="Owkin's non-commercial licence",
    commercial_use=False,
    access="open",
    declared_by=_README,
    trained_mpp=(0.5,),
    tile_px=224,
)
_hibou = partial(
    replace,
    mean=(0.7068, 0.5755, 0.722),
    std=(0.195, 0.2316, 0.1816),
    licence="apache-2.0",
    commercial_use=True,
    access="gated",
    declared_by=_GATED,
    trained_mpp=(0.5,),
    tile_px=224,
    trained_on=("1.1 million slides (in-house)",),
    citation="Nechaev, Pchelnikov and Ivanova 2024, arXiv:2406.05074",
)
_kaiko = partial(
    replace,
    mean=HALF,
    std=HALF,
    licence="kaiko-non-commercial",
    commercial_use=False,
    access="open",
    declared_by=_README,
    trained_mpp=_SCALES,
    tile_px=256,
    resizing=_TO_224,
    trained_on=("TCGA",),
    citation="kaiko.ai et al. 2024, arXiv:2404.15217",
)
_lunit = partial(
    replace,
    mean=(0.70322989, 0.53606487, 0.66096631),
    std=(0.21716536, 0.26081574, 0.20723464),
    licence="Lunit's non-commercial licence",
    commercial_use=False,
    access="open",
    declared_by=_README,
    trained_mpp=(0.25, 0.5),
    tile_px=224,
    trained_on=("TCGA", "TULIP (in-house)"),
    citation="Kang et al. 2023, CVPR, arXiv:2212.04690",
)

_CARDS = (
    _mahmood(
        describe_transformer("uni", "vit_large_patch16_224", 1024, _SCALED, size_step=16),
        hub_id="MahmoodLab/UNI",
        trained_on=("Mass-100K: 100,000 slides of two hospitals (in-house)", "GTEx"),
        trained_mpp=(0.5,),
        tile_px=256,
        resizing=_TO_224,
        citation="Chen et al. 2024, Nature Medicine 30:850",
    ),
    _mahmood(
        describe_transformer(
            "uni2-h",
            "vit_giant_patch14_224",
            1536,
            {
                **_SCALED,
                **_SWIGLU,
                "embed_dim": 1536,
                "depth": 24,
                "num_heads": 24,
                "reg_tokens": 8,
                "no_embed_class": True,
            },
            size_step=14,
        ),
        hub_id="MahmoodLab/UNI2-h",
        trained_on=("350,000 slides of Mass General Brigham (in-house)",),
        trained_mpp=(0.5,),
        tile_px=256,
        resizing=_TO_224,
        citation="Chen et al. 2024, Nature Medicine 30:850",
    ),
    _paige(
        describe_transformer(
            "virchow",
            "vit_huge_patch14_224",
            2560,
            {**_SCALED, **_SWIGLU, "mlp_ratio": 5.3375},
            size_step=14,
            pooling="token+mean",
        ),
        hub_id="paige-ai/Virchow",
        licence="apache-2.0",
        commercial_use=True,
        trained_on=("1.5 million slides of Memorial Sloan Kettering (in-house)",),
        trained_mpp=(0.5,),
        citation="Vorontsov et al. 2024, Nature Medicine 30:2924",
    ),
    _paige(
        describe_transformer(
            "virchow2",
            "vit_huge_patch14_224",
            2560,
            {**_SCALED, **_SWIGLU, "mlp_ratio": 5.3375, "reg_tokens": 4},
            size_step=14,
            pooling="token+mean",
        ),
        hub_id="paige-ai/Virchow2",
        licence="cc-by-nc-nd-4.0",
        commercial_use=False,
        trained_on=("3.1 million slides of Memorial Sloan Kettering and others (in-house)",),
        trained_mpp=_SCALES,
        citation="Zimmermann et al. 2024, arXiv:2408.00738",
    ),
    replace(
        describe_transformer("gigapath", "vit_giant_patch14_dinov2", 1536, {**_SCALED, **_SWIGLU, "patch_size": 16}),
        hub_id="prov-gigapath/prov-gigapath",
        licence="apache-2.0 with conditions (research only)",
        commercial_use=False,
        access="gated",
        declared_by=_GATED,
        trained_on=("Prov-Path: 171,000 slides of Providence (in-house)",),
        trained_mpp=(0.5,),
        tile_px=256,
        resizing="resized to 256 px, centre crop of 224 px",
        citation="Xu et al. 2024, Nature 630:181",
    ),
    _bioptimus(
        describe_transformer("h-optimus-0", "vit_giant_patch14_reg4_dinov2", 1536, _SCALED),
        hub_id="bioptimus/H-optimus-0",
        licence="apache-2.0",
        commercial_use=True,
        access="open",
        declared_by=_README,
        trained_on=("500,000 slides (in-house)",),
        citation="Saillard et al. 2024, github.com/bioptimus/releases",
    ),
    _bioptimus(
        describe_transformer("h-optimus-1", "vit_giant_patch14_reg4_dinov2", 1536, _SCALED),
        hub_id="bioptimus/H-optimus-1",
        licence="cc-by-nc-nd-4.0",
        commercial_use=False,
        access="gated",
        declared_by=_GATED,
        trained_on=("1 million slides (in-house)",),
        citation="Bioptimus 2025, huggingface.co/bioptimus/H-optimus-1",
    ),
    _bioptimus(
        describe_transformer(
            "h0-mini", "vit_base_patch14_reg4_dinov2", 1536, {**_SCALED, **_SWIGLU}, pooling="token+mean"
        ),
        hub_id="bioptimus/H0-mini",
        licence="cc-by-nc-nd-4.0",
        commercial_use=False,
        access="gated",
        declared_by=_GATED,
        trained_on=("TCGA", "the slides of H-optimus-0, which it is distilled from"),
        citation="Filiot et al. 2025, arXiv:2501.16239",
    ),
    _owkin(
        describe_transformer("phikon", "vit_base_patch16_224", 768, {"layernorm_eps": 1e-12}),
        hub_id="owkin/phikon",
        trained_on=("TCGA",),
        citation="Filiot et al. 2023, medRxiv 2023.07.21.23292757",
    ),
    _owkin(
        describe_transformer("phikon-v2", "vit_large_patch16_224", 1024, _SCALED),
        hub_id="owkin/phikon-v2",
        trained_on=("PANCAN-XL: more than 100 public cohorts, among them TCGA, CPTAC and GTEx",),
        citation="Filiot et al. 2024, arXiv:2409.09173",
    ),
    _hibou(
        describe_transformer("hibou-b", "vit_base_patch14_reg4_dinov2", 768, {**_SCALED, **_SWIGLU}),
        hub_id="histai/hibou-b",
    ),
    _hibou(
        # Its hidden layer is rounded up to a multiple of 8: 2736.
        describe_transformer(
            "hibou-l", "vit_large_patch14_reg4_dinov2", 1024, {**_SCALED, **_SWIGLU, "mlp_ratio": 5.34375}
        ),
        hub_id="histai/hibou-L",
    ),
    replace(
        describe_transformer("midnight-12k", "vit_giant_patch14_dinov2", 3072, _SCALED, pooling="token+mean"),
        hub_id="kaiko-ai/midnight",
        mean=HALF,
        std=HALF,
        licence="mit",
        commercial_use=True,
        access="open",
        declared_by=_README,
        trained_on=("TCGA",),
        trained_mpp=_SCALES,
        tile_px=224,
        citation="Karasikov et al. 2025, arXiv:2504.05186",
    ),
    _kaiko(
        describe_transformer("kaiko-s16", "vit_small_patch16_224", 384, {}, size_step=16),
        hub_id="1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms",
    ),
    _kaiko(
        describe_transformer("kaiko-s8", "vit_small_patch8_224", 384, {}, size_step=8),
        hub_id="1aurent/vit_small_patch8_224.kaiko_ai_towards_large_pathology_fms",
    ),
    _kaiko(
        describe_transformer("kaiko-b16", "vit_base_patch16_224", 768, {}, size_step=16),
        hub_id="1aurent/vit_base_patch16_224.kaiko_ai_towards_large_pathology_fms",
    ),
    _kaiko(
        describe_transformer("kaiko-b8", "vit_base_patch8_224", 768, {}, size_step=8),
        hub_id="1aurent/vit_base_patch8_224.kaiko_ai_towards_large_pathology_fms",
    ),
    _kaiko(
        # Its position embeddings are of 518 px; its authors interpolate them to 224.
        describe_transformer(
            "kaiko-l14", "vit_large_patch14_reg4_dinov2", 1024, {**_SCALED, "img_size": 518}, size_step=14
        ),
        hub_id="1aurent/vit_large_patch14_reg4_dinov2.kaiko_ai_towards_large_pathology_fms",
    ),
    _lunit(
        describe_transformer("lunit-s16", "vit_small_patch16_224", 384, {}, size_step=16),
        hub_id="1aurent/vit_small_patch16_224.lunit_dino",
    ),
    _lunit(
        describe_transformer("lunit-s8", "vit_small_patch8_224", 384, {}, size_step=8),
        hub_id="1aurent/vit_small_patch8_224.lunit_dino",
    ),
    EncoderCard(
        name="ctranspath",
        network="swin_tiny_patch4_window7_224",
        source="",
        weights_tag="",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        embedding_dim=768,
        block_dims=(96, 192, 384, 768),
        licence="gpl-3.0",
        access="open",
        hub_id="1aurent/swin_tiny_patch4_window7_224.CTransPath",
        trained_on=("TCGA", "PAIP"),
        declared_by=_README,
        input_px=224,
        fixed_input=True,
        pooling="mean",
        citation="Wang et al. 2022, Medical Image Analysis 81:102559",
        model_args={"embed_layer": "ConvStem"},
    ),
    _mahmood(
        describe_transformer(
            "conch",
            "vit_base_patch16_224",
            512,
            {"query_pool": {"width": 512, "heads": 8, "bias": True}},
            input_px=448,
            size_step=16,
            pooling="attention",
        ),
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        hub_id="MahmoodLab/conch",
        trained_on=("1.17 million image-caption pairs (PubMed and in-house)",),
        trained_mpp=(0.5,),
        tile_px=512,
        resizing="resized to 448 px",
        citation="Lu et al. 2024, Nature Medicine 30:863",
    ),
    _mahmood(
        describe_transformer(
            "conch-v1.5",
            "vit_large_patch16_224",
            768,
            {"init_values": 1.0, "query_pool": {"width": 768, "heads": 8, "bias": False}},
            input_px=448,
            pooling="attention",
        ),
        hub_id="MahmoodLab/conchv1_5",
        hub_file="pytorch_model_vision.bin",
        trained_on=("1.26 million image-caption pairs (in-house)", "what UNI was trained on, GTEx among it"),
        trained_mpp=(0.5,),
        tile_px=512,
        resizing="resized to 448 px",
        citation="Ding et al. 2025, Nature Medicine, arXiv:2411.19666",
    ),
    replace(
        describe_transformer("plip", "vit_base_patch32_clip_quickgelu_224", 512, {"projection": 512}),
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        hub_id="vinid/plip",
        licence="not stated with the weights; its README allows research",
        commercial_use=False,
        access="open",
        declared_by=_README,
        trained_on=("OpenPath: pictures and captions of Twitter and LAION",),
        citation="Huang et al. 2023, Nature Medicine 29:2307",
    ),
    replace(
        describe_transformer("gpfm", "vit_large_patch14_dinov2", 1024, _SCALED),
        hub_id="majiabo/GPFM",
        hub_file="GPFM.pth",
        licence="cc-by-nc-nd-4.0",
        commercial_use=False,
        access="open",
        declared_by=_README,
        trained_on=("public slides of 56 sources, among them TCGA, CPTAC and GTEx",),
        trained_mpp=(0.5,),
        resizing=_TO_224,
        citation="Ma et al. 2025, Nature Biomedical Engineering",
    ),
)


FOUNDATION: tuple[EncoderCard, ...] = tuple(map(say_source, _CARDS))
"""The pathology foundation models that `lamella encoders` lists."""
