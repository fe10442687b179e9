#!/usr/bin/env bash
# The measurements of docs/performance.md and docs/scale.md on one GPU of 139 GiB, each in a file of its own.
# benchmarks/reproduce.sh OUTPUT PART...
# Parts: train_32k train_32k_more train_8k train_2k score packing attention curves fits longest longest_offloaded. Most take 1
# to 5 minutes, `train_32k_more` 9, `longest` 12, `longest_offloaded` 14; one that fails does not stop the others.
# LENGTH=TOKENS: `longest_offloaded` runs at another context length than what 128 GiB of CPU memory allow.
# LOSSES=FOLDER: `score` counts from the losses there, of `real_losses.sh`, how many windows a sample needs.
set -u
output=$1
shift
mkdir -p "$output"
train="python benchmarks/train_step.py"

# A full fine-tuning step is traced and run twice: predicted peak and time beside what was measured.
plan() {
    python -m lit_pi plan --verify --model.llm FromScratch --model.position configs/position/interpolate.yaml \
        --data.train StandardLibrary --data.packing concatenated --trainer.accelerator gpu --trainer.devices 1 "$@"
}

longest() {
    plan --model.llm.size 8b --model.position.scale 37.5 --trainer.precision bf16-true \
        --model.optimizer configs/optimizer/adamw_8bit.yaml --model.activation_checkpointing.mode full \
        --model.activation_checkpointing.offload true "$@"
}

for part in "$@"; do
    case $part in
    train_32k) $train --steps 4 --rows "stock transformers" bf16 float8 --output "$output/$part.json" ;;
    train_32k_more) $train --steps 3 --rows bf16 "bf16, 8-bit states" "bf16, float32 weights" \
        "bf16, Liger kernels, not compiled" litgpt "stock transformers" --output "$output/$part.json" ;;
    train_8k) $train --context-length 8192 --batch-size 2 --accumulate 4 --steps 3 --rows "stock transformers" bf16 \
        --output "$output/$part.json" ;;
    train_2k) $train --context-length 2048 --batch-size 8 --accumulate 4 --steps 4 --rows bf16 \
        --output "$output/$part.json" ;;
    score) python benchmarks/score_windows.py --size 7b --context-lengths 2048 4096 8192 16384 32768 --stride 256 \
        --device cuda --dtype bfloat16 --documents 100 --document-tokens 100000 --windows 3 ${LOSSES:+--losses "$LOSSES"} \
        --output "$output/$part" ;;
    packing) python benchmarks/packing.py --size 7b --context-length 32768 --repetitions 5 --no-dense \
        --output "$output/$part.json" ;;
    attention) python benchmarks/attention_kinds.py --output "$output/$part.json" ;;
    curves) python benchmarks/loss_curves.py --hidden-size 512 --layers 6 --output "$output/$part" ;;
    longest) longest --data.context_length 304000 ;;
    longest_offloaded) longest --data.context_length "${LENGTH:-294912}" --trainer.strategy FSDP2 \
        --trainer.strategy.cpu_offload true ;;
    fits) plan --model.llm.size 7b --model.position.scale 16 --data.context_length 32768 \
        --trainer.precision bf16-mixed --model.optimizer configs/optimizer/adamw.yaml \
        --model.activation_checkpointing.mode attention_saved ;;
    *) echo "no part $part" ;;
    esac >"$output/$part.log" 2>&1 || echo "$part failed: $output/$part.log"
done
