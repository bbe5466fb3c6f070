#!/bin/sh
# Everything that needs a GPU, in under ten minutes: the tests marked gpu, then the benchmark. In a checkout of the
# repository whose .venv has PyTorch's CUDA build; without a GPU the tests are skipped and the benchmark says so.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
"$python" -c "import torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda, 'cuDNN', torch.backends.cudnn.version())
print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
timeout 240 "$python" -m pytest -q -rs -n 0 -m gpu tests
timeout 330 "$python" -m benchmarks gpu
