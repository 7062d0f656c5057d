"""The networks of `networks.py`: those that the solver may be mended for, and those reported apart.

Written before the first result was seen. All have random weights. Networks of timm and transformers are
those packages' own code, in small variants; a few common shapes that neither has are in `networks_own.py`;
the ONNX files are what packages bring along, as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """One network of the benchmark.

    Attributes:
        name: As `--network` takes it, `own:NAME` for one of `networks_own.py`, or `PACKAGE:FILE.onnx` for a
            file in a package's wheel.
        inputs: As `--input` takes them; none where the network's kind says them.
        config: Of transformers: what differs from the configuration class's defaults.
        model: Of transformers: the model class, where it is not what AutoModel makes.
    """

    name: str
    inputs: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    model: str = ""


def _timm(names: str, inputs: tuple[str, ...] = ()) -> tuple[Network, ...]:
    return tuple(Network(f"timm:{name}", inputs) for name in names.split())


# Convolutional networks take any size; a smaller one than they were trained for runs faster.
SMALL = ("x=1x3x128x128",)
TOKENS = ("input_ids=1x32",)
_ENCODER = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_SIZES = {**_ENCODER, "intermediate_size": 256, "vocab_size": 2000}

CONVOLUTIONAL = _timm(
    "resnet18 resnet50 resnext50_32x4d legacy_seresnet18 skresnet18 resnest14d res2net50_14w_8s "
    "mobilenetv2_100 mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small "
    "efficientnet_b0 tf_efficientnetv2_b0 mnasnet_100 densenet121 regnety_004 regnetx_002 "
    "convnext_atto convnextv2_atto repvgg_a0 ghostnet_100 hrnet_w18_small vgg11_bn dla34 "
    "cspdarknet53 poolformer_s12 nf_regnet_b0 nfnet_l0 inception_v3 xception41 rexnet_100 dpn68 "
    "repvit_m0_9 mobileone_s0 lcnet_050 selecsls42",
    SMALL,
)
OTHERS_OF_TIMM = _timm(
    "vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 "
    "swin_tiny_patch4_window7_224 mixer_s32_224 gmlp_s16_224 resmlp_12_224 edgenext_xx_small "
    "mobilevit_xxs mobilevitv2_050 levit_128s efficientformer_l1 pit_ti_224"
)
OF_TRANSFORMERS = (
    Network("hf:BertConfig", TOKENS, _SIZES),
    Network(
        "hf:DistilBertConfig", TOKENS, {"dim": 128, "hidden_dim": 256, "n_layers": 2, "n_heads": 4}
    ),
    Network(
        "hf:GPT2Config", TOKENS, {"n_embd": 128, "n_layer": 2, "n_head": 4, "vocab_size": 2000}
    ),
    Network("hf:LlamaConfig", TOKENS, {**_SIZES, "num_key_value_heads": 2}),
    Network(
        "hf:Wav2Vec2Config",
        ("input_values=1x8000",),
        {**_ENCODER, "intermediate_size": 256, "conv_dim": (64,) * 7},
    ),
    Network("hf:RobertaConfig", TOKENS, _SIZES),
    Network("hf:AlbertConfig", TOKENS, {**_SIZES, "embedding_size": 64}),
    Network(
        "hf:T5Config",
        TOKENS,
        {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4},
        "T5EncoderModel",
    ),
    Network("hf:ViTConfig", (), {**_ENCODER, "intermediate_size": 256}),
    Network("hf:MobileBertConfig", TOKENS, {"num_hidden_layers": 2, "vocab_size": 2000}),
    Network("hf:ElectraConfig", TOKENS, {**_SIZES, "embedding_size": 64}),
    Network("hf:SqueezeBertConfig", TOKENS, {**_SIZES, "embedding_size": 128}),
)
OWN = (
    Network("own:yolo_like"),
    Network("own:unet"),
    Network("own:bilstm"),
    Network("own:gru"),
    Network("own:espcn"),
    Network("own:mlp"),
    Network("own:signal"),
    Network("own:volume"),
    Network("own:channel_shuffle"),
    Network("own:siamese"),
    Network("own:tied_words"),
)
FILES = (
    Network(
        "rapidocr-onnxruntime:ch_PP-OCRv4_det_infer.onnx",
        ("1x3x160x160",),
    ),
    Network("rapidocr-onnxruntime:ch_PP-OCRv4_rec_infer.onnx", ("1x3x48x320",)),
    Network("rapidocr-onnxruntime:ch_ppocr_mobile_v2.0_cls_infer.onnx", ("1x3x48x192",)),
    Network("magika:model.onnx", ("1x2048",)),
    Network("silero-vad:silero_vad.onnx", ("input=1x512", "state=2x1x128")),
    Network("nudenet:320n.onnx", ("1x3x320x320",)),
)

# The solver's rules may be mended for what these show.
FIRST = (*CONVOLUTIONAL, *OTHERS_OF_TIMM, *OF_TRANSFORMERS, *OWN, *FILES)

# Nothing is mended for these: they say how it goes with a network that nobody has looked at.
SECOND = (
    *_timm(
        "tinynet_e fbnetc_100 ese_vovnet19b_dw hgnetv2_b0 starnet_s1 gernet_s cspresnet50 "
        "inception_next_atto efficientvit_b0 fastvit_t8",
        SMALL,
    ),
    *_timm(
        "pvt_v2_b0 coat_lite_tiny xcit_nano_12_p16_224 twins_pcpvt_small tiny_vit_5m_224 visformer_tiny"
    ),
    Network("hf:OPTConfig", TOKENS, {**_ENCODER, "ffn_dim": 256, "word_embed_proj_dim": 128}),
    Network("hf:GPTNeoXConfig", TOKENS, _SIZES),
    Network("hf:MPNetConfig", TOKENS, _SIZES),
    Network("hf:SegformerConfig", ("pixel_values=1x3x128x128",)),
)
