# docker build -f docker/cpu.Dockerfile -t diffsplat .
# docker run --rm -p 127.0.0.1:7860:7860 diffsplat serve --host 0.0.0.0
FROM python:3.12-slim
RUN useradd --create-home diffsplat
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
WORKDIR /opt/diffsplat
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir ".[serve,mesh]"
USER diffsplat
WORKDIR /home/diffsplat
RUN diffsplat warmup
ENTRYPOINT ["diffsplat"]
