#!/usr/bin/env bash
# The main job on a tiny model, all of it made here: random weights, pretraining, QLoRA fine-tuning, questions answered.
# KEY=VALUE arguments go to the fine-tuning and give it a folder of its own: bash script/demo.sh use_unsloth=true
set -euo pipefail

prepare() {
    local folder
    folder=$(dirname -- "${BASH_SOURCE[0]}")
    # shellcheck source=setup.sh
    . "$folder/setup.sh"
    cd "$repository"
    # Everything is local. The matrices are so small that a second thread costs more than it brings.
    export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
}

# The folder of this variant: sft-qlora, or sft-qlora+use_unsloth=true.
variant_folder() {
    local name=sft-qlora override
    for override in "$@"; do
        case "$override" in
            output_dir=*) echo "demo: output_dir is the demo's own; use train.py for a run of yours" >&2 && exit 2 ;;
            *=*) name=$name+$(printf '%s' "$override" | tr -c 'A-Za-z0-9_.=-' '_') ;;
            *) echo "demo: $override: not of the form KEY=VALUE, such as use_unsloth=true" >&2 && exit 2 ;;
        esac
    done
    printf 'output/demo/%s\n' "$name"
}

say() {
    printf '\n== %s\n' "$*"
}

main() {
    local tuned before after started
    tuned=$(variant_folder "$@") || exit
    prepare
    started=$SECONDS
    before=output/demo/answers-before.json
    after=$tuned/answers.json
    # Always from the beginning: a finished run would only say that it is finished.
    rm -rf output/demo/tiny output/demo/pretrain "$tuned"

    say "1/5 a small tokenizer and a random Llama"
    "$python" script/make_tiny_model.py --texts data/demo/pretrain.jsonl --output output/demo/tiny
    say "2/5 pretraining on sample texts"
    "$python" train.py --train_args_file train_args/demo/pretrain.json
    say "3/5 QLoRA fine-tuning on sample conversations"
    "$python" train.py --train_args_file train_args/demo/sft-qlora.json "output_dir=$tuned" "$@"
    say "4/5 questions to the pretrained model"
    ask output/demo/pretrain "$before"
    say "5/5 questions to the fine-tuned adapter"
    ask "$tuned" "$after"
    "$python" script/demo_summary.py --pretrain output/demo/pretrain --tuned "$tuned" --before "$before" --after "$after"
    echo "$((SECONDS - started)) seconds, without the installation"
}

ask() {
    "$python" script/evaluate.py --model "$1" --data data/demo/train.jsonl data/demo/held_out.jsonl \
        --max_new_tokens 16 --json "$2"
}

main "$@"
