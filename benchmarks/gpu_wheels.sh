#!/usr/bin/env bash
# Wheels for a machine with a GPU, Python and JAX but no network. Run here, in the checkout, with a network:
#   benchmarks/gpu_wheels.sh [PYTHON_VERSION]        # 3.12 by default; fills .wheels/
# Carry the checkout with .wheels/ to the other machine, and run there:
#   python3 -m pip install --no-index --no-deps --upgrade --target .site .wheels/*.whl
#   PYTHONPATH=.site:. python3 benchmarks/gpu.py --minutes 8
# JAX, jaxlib, its CUDA plugin, NumPy and SciPy are taken as they are installed there; what of the rest is there already wins nothing
# and costs nothing. gymnasium is only read for its model files (ant, humanoid).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .wheels
platforms=()
for p in 2_34 2_31 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${p}_x86_64"); done
python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "${1:-3.12}" --dest .wheels \
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform any \
  mujoco==3.17.0 mujoco-mjx==3.17.0 equinox jaxtyping wadler-lindig optax lineax h5py matplotlib pillow jinja2 pooch rich \
  absl-py etils trimesh glfw pyopengl platformdirs gymnasium
du -sh .wheels
