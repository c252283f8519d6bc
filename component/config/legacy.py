"""Names from elsewhere: those that transformers dropped are translated, those of other frameworks are explained."""

from __future__ import annotations

from collections.abc import Mapping

#: Keys that transformers (or Firefly's era of it) called differently -> the key here. Translated with a notice.
RENAMED: Mapping[str, str] = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "torch_dtype": "dtype",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}

#: Switches of other frameworks -> the key here and what it is where the switch is on. Translated with a notice.
SWITCHES: Mapping[str, tuple[str, str]] = {
    "load_in_4bit": ("quantization", "int4"),
    "load_in_8bit": ("quantization", "int8"),
}

#: Renamed keys whose value was a share: the new key would take 1 and more as a count.
SHARES = ("warmup_ratio",)

#: Keys that transformers dropped and nothing replaces -> why they can go. Left out with a notice.
DROPPED: Mapping[str, str] = {
    "overwrite_output_dir": "a finished or different run is never overwritten; choose another output_dir",
    "save_safetensors": "weights are always saved as safetensors",
    "logging_dir": "logs go to the run folder",
    "local_rank": "the launcher sets it",
    "do_train": "train.py always trains",
    "do_eval": "evaluation runs when eval_file or eval_split is set",
    "do_predict": "train.py does not predict",
    "include_tokens_per_second": "tokens per second are always logged",
    "include_num_input_tokens_seen": "tokens are always counted",
    "save_on_each_node": "the run folder is written by rank 0",
    "use_sharegpt_mapping": "the format of rows is recognised, sharegpt's among them; data_format names it",
    "max_prompt_length": "prompt and answer together have max_seq_length tokens, and truncation says what is cut",
}

#: (key, old value) -> new value. Translated with a notice.
RENAMED_VALUES: Mapping[tuple[str, str], str] = {
    ("optim", "adamw_hf"): "adamw_torch",
    ("optim", "adamw_apex_fused"): "adamw_torch_fused",
    ("optim", "adamw_bnb"): "adamw_bnb_8bit",
    ("optim", "paged_adamw"): "paged_adamw_32bit",
    ("optim", "lion"): "lion_32bit",
    ("optim", "paged_lion"): "paged_lion_32bit",
    ("report_to", "all"): "tensorboard",
}

#: (key, value of other frameworks) -> what to write here.
FOREIGN_VALUES: Mapping[tuple[str, str], str] = {
    ("task_type", "simpo"): "use task_type: cpo with loss_type: simpo and cpo_alpha: 0",
    ("task_type", "alphapo"): "use task_type: cpo with loss_type: alphapo",
    ("task_type", "ipo"): "use task_type: dpo with loss_type: ipo",
}

#: Keys of LLaMA-Factory, Axolotl, TRL and Unsloth -> what to write here. They stay errors: their values may differ too.
FOREIGN: Mapping[str, str] = {
    "adapter": "use train_mode: lora or qlora",
    "add_eos": "use append_stop_token",
    "add_special_tokens": "use new_tokens",
    "add_tokens": "use new_tokens",
    "additional_target": "use modules_to_save",
    "alpha": "use lora_alpha (for the rewards of cpo: alphapo_alpha)",
    "append_eos": "use append_stop_token",
    "assistant_only_loss": "leave it out: sft trains on the answers only, unless train_on_prompt is true",
    "base_model": "use model_name_or_path",
    "batch_size": "use per_device_train_batch_size",
    "block_size": "use max_seq_length",
    "bnb_4bit_compute_dtype": "leave it out: it follows fp16 and bf16",
    "chat_template": "use template_name",
    "chat_template_path": "use template_name with the .jinja file",
    "column_mapping": "use columns",
    "completion_only_loss": "leave it out: sft trains on the answers only, unless train_on_prompt is true",
    "cutoff_len": "use max_seq_length",
    "dataset": "use train_file",
    "dataset_dir": "use train_file with the folder in it",
    "dataset_info": "use train_file with data_format and columns",
    "dataset_name": "use train_file",
    "dataset_num_proc": "use tokenize_num_workers",
    "dataset_prepared_path": "use cache_dir",
    "dataset_processes": "use tokenize_num_workers",
    "dataset_text_field": "leave it out: text rows have the column text",
    "datasets": "use train_file",
    "eager_attention": "use attn_implementation: eager",
    "enable_liger_kernel": "use use_liger_kernel",
    "enable_thinking": "use chat_template_kwargs: {enable_thinking: ...}",
    "epochs": "use num_train_epochs",
    "eval_dataset": "use eval_file",
    "eval_dataset_size": "use eval_split",
    "eval_packing": "leave it out: evaluation is never packed, and its loss is a mean over tokens",
    "eval_ratio": "use eval_split",
    "evals_per_epoch": "use eval_strategy and eval_steps",
    "excess_length_strategy": "use truncation",
    "finetuning_type": "use train_mode",
    "flash_attention": "use attn_implementation: flash_attention_2",
    "flash_attn": "use attn_implementation",
    "formatting": "use data_format",
    "freeze_extra_modules": "leave it out: with freeze_trainable_layers the layers alone are trained",
    "freeze_trainable_modules": "leave it out: with freeze_trainable_layers all of a layer is trained",
    "full_finetuning": "use train_mode: full",
    "infer_backend": "leave it out: it is not a training setting",
    "interleave_probs": "use mixture_weights",
    "load_in_16bit": "use train_mode: lora",
    "load_in_fp8": "fp8 bases are not available: Unsloth alone makes them, with torchao, on GPUs of compute capability "
    "9.0, as a copy of the model in a temporary folder that the adapter would name as its base; use quantization: int8",
    "lora_modules_to_save": "use modules_to_save",
    "lora_r": "use lora_rank",
    "lora_target": "use lora_target_modules",
    "lora_target_linear": "use lora_target_modules: all-linear",
    "lr": "use learning_rate",
    "lr_scheduler": "use lr_scheduler_type",
    "mask_history": "use train_on: last",
    "max_length": "use max_seq_length",
    "kl_coef": "use beta",
    "max_new_tokens": "use generation_max_new_tokens (with grpo: max_completion_length)",
    "messages_key": "use columns",
    "micro_batch_size": "use per_device_train_batch_size",
    "mix_strategy": "use mixture_weights (repeats no row)",
    "model_init_kwargs": "use the model keys: dtype, attn_implementation, trust_remote_code",
    "model_max_length": "use max_seq_length",
    "model_name": "use model_name_or_path",
    "model_revision_id": "use model_revision",
    "neat_packing": "leave it out: packed samples never see each other; use packing",
    "new_special_tokens": "use new_tokens",
    "num_epochs": "use num_train_epochs",
    "num_generations_eval": "leave it out: evaluation samples num_generations too",
    "optimizer": "use optim",
    "output_path": "use output_dir",
    "overwrite_cache": "leave it out: a change is always seen; script/cache.py clear empties the cache",
    "packing_strategy": "leave it out: packing is first-fit decreasing",
    "pad_to_sequence_len": "leave it out: batches are padded to their longest row; packing fills rows",
    "plot_loss": "leave it out: loss.png is always drawn",
    "pref_beta": "use beta",
    "pref_loss": "use loss_type (simpo: with task_type: cpo)",
    "preprocessing_num_workers": "use tokenize_num_workers",
    "preprocessing_workers": "use tokenize_num_workers",
    "prompt_column": "use columns",
    "pure_bf16": "use dtype: bfloat16 with train_mode: full",
    "quantization_bit": "use train_mode: qlora with quantization: int4 or int8",
    "r": "use lora_rank",
    "random_state": "use seed",
    "resize_token_embeddings_to_32x": "leave it out: the vocabulary grows by what new_tokens needs",
    "resize_vocab": "leave it out: the vocabulary grows by what new_tokens needs",
    "response_template": "leave it out: answers are found in the rendered text by construction",
    "reward_funcs": "use reward_functions",
    "reward_model": "leave it out: rewards are functions; one of your own can ask a model",
    "resume_from_checkpoint": "use train.py --resume auto|never|PATH; auto is the default",
    "roles_to_train": "leave it out: sft trains on the answers only, unless train_on_prompt is true",
    "sample_packing": "use packing",
    "saves_per_epoch": "use save_strategy and save_steps",
    "seq_len": "use max_seq_length",
    "sequence_len": "use max_seq_length",
    "sharegpt_tags": "leave it out: all usual role names are read",
    "shuffle": "leave it out: the order is drawn anew in each epoch, from the seed",
    "special_tokens": "use new_tokens for tokens that the model lacks; which of them end and pad is the tokenizer's",
    "simpo_gamma_beta_ratio": "use simpo_gamma (this ratio times beta)",
    "stage": "use task_type",
    "streaming": "leave it out: prepared rows lie in memory-mapped files",
    "system": "use default_system",
    "target_modules": "use lora_target_modules",
    "template": "use template_name",
    "tokenized_path": "use cache_dir",
    "tokenizer": "use tokenizer_name_or_path",
    "tokens": "use new_tokens",
    "tool_format": "leave it out: the chat template writes the tools",
    "train_on_eos": "leave it out: the stop token of an answer is always learned",
    "train_on_inputs": "use train_on_prompt",
    "train_on_responses_only": "leave it out: sft trains on the answers only, unless train_on_prompt is true",
    "train_sampling_strategy": "use group_by_length",
    "use_gradient_checkpointing": "use gradient_checkpointing",
    "use_peft": "use train_mode: lora or qlora",
    "val_set_size": "use eval_split",
    "val_size": "use eval_split",
    "validation_split": "use eval_split",
    "wandb_project": "set the environment variable WANDB_PROJECT and report_to: wandb",
    "xformers_attention": "leave it out: Unsloth uses xformers where it loads",
}

#: Keys of Lampyris's design whose part is not built yet -> what it will belong to. Refused by name.
PLANNED: Mapping[str, str] = {
    "global_batch_size": "automatic batch settings",
}
