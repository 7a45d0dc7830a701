# The image of one bundle and of the server that answers with it.
# `slipway image build` makes the context: this commit's files, bundle/ and provenance.json; `docker build .` does not.

# Where the packages are put together (with `strip`, which the slim images lack), and what they run on: a base without
# shell and package manager. Both need the same Python, 3.11 to 3.14. A fork pins both by digest, as NAME@sha256:...
ARG BUILD_BASE=docker.io/library/python:3.13-trixie
ARG BASE=gcr.io/distroless/python3-debian13:nonroot

FROM ${BUILD_BASE} AS build
# A mirror of PyPI is named by the machine that builds. This stage knows it, and is no part of the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
COPY requirements/serve.txt /
WORKDIR /layer/app/packages
# Left out is what serving never imports (most of it a second copy of ONNX Runtime, for other languages), the debugging
# symbols of wheels that come with them, and the sources of packages: bytecode runs without. Bytecode that does not ask
# for the time of its source, and files that are all of 1970, make the same layer in every build, so that nodes which
# have it fetch a new model only.
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-compile \
    --only-binary=:all: --require-hashes --target . --requirement /serve.txt \
    && rm -rf bin numpy/distutils numpy/f2py numpy/random numpy/_core/_simd.* onnxruntime/capi/libonnxruntime.so.* \
    onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    && find . -depth \( -type d -name tests -o -type f -name '*.pyi' \) -exec rm -rf {} + \
    && strip --strip-debug httptools/parser/*.so uvloop/*.so \
    && python3 -m compileall -q -b -j 0 --invalidation-mode unchecked-hash -s /layer -p / /layer \
    && find . -name '*.py' -delete \
    && find /layer -exec touch --no-dereference --date=@0 {} +
WORKDIR /app
COPY src/slipway slipway
RUN python3 -m compileall -q --invalidation-mode unchecked-hash slipway

# What changes least comes first: a new model is a new last layer.
FROM ${BASE}
ENV PYTHONPATH=/app:/app/packages \
    SLIPWAY_HOST=0.0.0.0 \
    SLIPWAY_PROVENANCE=/app/provenance.json
COPY --from=build /layer /
COPY --from=build /app/slipway /app/slipway
USER 0
# Proves that the base can run the packages, and leaves the bytecode of Python's own modules, which bases do not have.
RUN ["python3", "-c", "import slipway.serving.server"]
COPY bundle /app/bundle
COPY provenance.json /app/
EXPOSE 8080
USER 65532:65532
# No HEALTHCHECK: the cluster asks /healthz and /readyz.
ENTRYPOINT ["python3", "-m", "slipway.serving", "/app/bundle"]
CMD []
