# docker build -f docker/cuda.Dockerfile -t diffsplat:cuda .
# docker run --rm --gpus all -v diffsplat:/home/diffsplat/.cache -p 127.0.0.1:7860:7860 diffsplat:cuda serve --host 0.0.0.0
#
# The image with the compiler: gsplat compiles its kernels when it is first used.
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home diffsplat && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cu128
WORKDIR /opt/diffsplat
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir ".[serve,mesh,cuda,image,lora]"
USER diffsplat
RUN mkdir /home/diffsplat/.cache
WORKDIR /home/diffsplat
ENTRYPOINT ["diffsplat"]
