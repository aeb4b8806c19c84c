"""Write the adapters, backbones and logits of this folder with the `adapters` library.

Run once, in an environment of its own: `pip install adapters==1.3.0 && python make.py`. It needs transformers 4.57.6.
"""

from pathlib import Path

import adapters
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
NAME = "vqa"


def ids(*shape):
    return torch.randint(5, 90, shape)


def bart():
    config = transformers.BartConfig(
        vocab_size=100,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        dropout=0.0,
    )
    return transformers.BartForConditionalGeneration(config), {"input_ids": ids(4, 7), "labels": ids(4, 5)}


def t5():
    config = transformers.T5Config(
        vocab_size=100,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    return transformers.T5ForConditionalGeneration(config), {"input_ids": ids(4, 7), "labels": ids(4, 5)}


def bert():
    return transformers.BertModel(transformers.BertConfig(vocab_size=100, **SIZES)), {"input_ids": ids(4, 7)}


def clip():
    special = {"eos_token_id": 99, "bos_token_id": 98, "pad_token_id": 99}
    config = transformers.CLIPConfig(
        projection_dim=8,
        text_config={**SIZES, "vocab_size": 100, "max_position_embeddings": 16, **special},
        vision_config={**SIZES, "image_size": 16, "patch_size": 8},
    )
    text = ids(4, 7)
    text[:, -1] = 99
    return transformers.CLIPModel(config), {"input_ids": text, "pixel_values": torch.randn(4, 3, 16, 16)}


def outputs(model, batch):
    result = model(**batch)
    if "logits" in result:
        return result.logits
    if "last_hidden_state" in result:
        return result.last_hidden_state
    return torch.cat([result.text_embeds, result.image_embeds], dim=-1)


def main():
    for build in (bart, t5, bert, clip):
        kept = {}
        for config in (
            adapters.SeqBnConfig(reduction_factor=4),
            adapters.DoubleSeqBnConfig(reduction_factor=4),
        ):
            torch.manual_seed(0)
            model, batch = build()
            seen = set()
            for key, value in model.state_dict().items():
                if value.data_ptr() not in seen:
                    seen.add(value.data_ptr())
                    kept[f"base/{key}"] = value.clone()
            adapters.init(model)
            model.add_adapter(NAME, config=config)
            model.set_active_adapters(NAME)
            torch.manual_seed(1)
            with torch.no_grad():
                for name, value in model.named_parameters():
                    if NAME in name:
                        value.add_(torch.randn_like(value) * 0.1)
                kind = "seq_bn" if config.original_ln_before else "double_seq_bn"
                kept[f"y/{kind}"] = outputs(model.eval(), batch).contiguous()
            kept |= {f"batch/{key}": value for key, value in batch.items()}
            model.save_adapter(HERE / f"{build.__name__}_{kind}", NAME, use_safetensors=True, with_head=False)
        save_file(kept, HERE / f"{build.__name__}.safetensors")


if __name__ == "__main__":
    main()
