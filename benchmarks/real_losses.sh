#!/usr/bin/env bash
# Losses of all windows of real text, from which `score_windows.py --losses OUTPUT/losses` counts how many have to be drawn.
# benchmarks/real_losses.sh TRAIN TEST OUTPUT     # text, JSONL or Parquet of long documents; on a GPU
# A model of 58 million parameters is trained at 2,048 tokens, extended to 32,768 by Position Interpolation, and tested.
set -eu
train=$1
test=$2
output=$3
fit() {
    python -m lit_pi fit --trainer.precision bf16-mixed --trainer.devices 1 --trainer.limit_val_batches 0 \
        --trainer.enable_progress_bar false --data.train TextFiles --data.train.train "$train" \
        --data.tokenizer "$output/bpe" --data.evaluations '{}' --data.packing concatenated \
        --model.optimizer configs/optimizer/adamw.yaml "$@"
}

python -m lit_pi tokenizer --corpus TextFiles --corpus.train "$train" --vocabulary_size 32000 --output "$output/bpe"
fit --model.llm FromScratch --model.llm.size 2m --model.llm.config '{vocab_size: 32000, hidden_size: 512,
    intermediate_size: 1408, num_hidden_layers: 8, num_attention_heads: 8, initializer_range: 0.04}' \
    --model.position Extrapolate --data.context_length 2048 --data.batch_size 16 --trainer.max_steps 1500 \
    --model.optimizer.lr 1e-3 --trainer.default_root_dir "$output/base"
fit --model.llm Pretrained --model.llm.path "$output/base" --model.position Interpolate --model.position.scale 16 \
    --data.context_length 32768 --data.batch_size 2 --trainer.max_steps 150 --model.optimizer.lr 2e-4 \
    --trainer.default_root_dir "$output/extended"
python -m lit_pi test --model.llm Pretrained --model.llm.path "$output/extended" --model.position Interpolate \
    --model.position.scale 16 --trainer.precision bf16-true --trainer.devices 1 --trainer.enable_progress_bar false \
    --data.tokenizer "$output/bpe" --trainer.default_root_dir "$output/losses" --data.evaluations "{books: {class_path: Perplexity,
    init_args: {corpus: {class_path: TextFiles, init_args: {test: $test}}, context_lengths: [2048, 4096, 8192, 16384, 32768],
    stride: 256, disjoint: true, max_documents: 10, max_tokens: 100000, min_tokens: 100000}}}"
