# The images of a bundle: `server` answers requests, and `batch` also scores files.
# `slipway image build` creates the context: files of the last commit, bundle/, provenance.json, MODEL_CARD.md.

# The first image builds the packages (with `strip`, which slim images lack). The second runs them, without a shell or a
# package manager. Both need the same Python, 3.11 to 3.14. In a fork, `slipway image pin` pins both by digest, as does the
# workflow Upgrade. Dependabot then updates the digests, too.
FROM docker.io/library/python:3.13-trixie AS build
# The building machine can set a mirror of PyPI. It stays in this stage, which is not part of the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
# Another build of ONNX Runtime, for a GPU (docs/heavy-models.md). It replaces the locked one.
ARG ONNXRUNTIME_PACKAGE
# Set for a bundle that decodes images. It adds 8 MB.
ARG IMAGES
COPY requirements/serve.txt requirements/images.txt /
WORKDIR /layer/app/packages
# Removed are modules that serving never imports (mostly a second copy of ONNX Runtime for other languages), debugging
# symbols, and the sources of packages, because bytecode runs without them. Unchecked bytecode and files dated 1970 give
# the same layer in every build, so a node that has the layer pulls only a new model.
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-compile \
    --only-binary=:all: --require-hashes --target . --requirement /serve.txt ${IMAGES:+--requirement /images.txt} \
    && if [ -n "$ONNXRUNTIME_PACKAGE" ]; then rm -rf onnxruntime onnxruntime-* && python3 -m pip install --no-cache-dir \
    --disable-pip-version-check --root-user-action=ignore --no-compile --no-deps --only-binary=:all: --target . \
    "$ONNXRUNTIME_PACKAGE"; fi \
    && rm -rf bin numpy/distutils numpy/f2py numpy/random numpy/_core/_simd.* onnxruntime/capi/libonnxruntime.so.* \
    onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    PIL/_avif.* PIL/_webp.* PIL/_imagingcms.* PIL/_imagingft.* PIL/_imagingmath.* PIL/_imagingmorph.* PIL/_imagingtk.* \
    pillow.libs/libavif* pillow.libs/libwebp* pillow.libs/libsharpyuv* pillow.libs/libfreetype* pillow.libs/libharfbuzz* \
    pillow.libs/liblcms2* pillow.libs/libbrotli* pillow.libs/libpng16* \
    && find . -depth \( -type d -name tests -o -type f -name '*.pyi' \) -exec rm -rf {} + \
    && strip --strip-debug httptools/parser/*.so uvloop/*.so \
    && python3 -m compileall -q -b -j 0 --invalidation-mode unchecked-hash -s /layer -p / /layer \
    && find . -name '*.py' -delete \
    && find /layer -exec touch --no-dereference --date=@0 {} +
WORKDIR /app
COPY src/slipway slipway
RUN python3 -m compileall -q --invalidation-mode unchecked-hash slipway

# Layers that change rarely come first: a new model changes only the last layers.
FROM gcr.io/distroless/python3-debian13:nonroot AS server
ENV PYTHONPATH=/app:/app/packages \
    SLIPWAY_HOST=0.0.0.0 \
    SLIPWAY_PROVENANCE=/app/provenance.json
COPY --from=build /layer /
COPY --from=build /app/slipway /app/slipway
USER 0
# Fails if the base cannot run the packages, and writes the bytecode of Python's modules, which bases lack.
RUN ["python3", "-c", "import slipway.serving.server"]
COPY bundle /app/bundle
COPY provenance.json MODEL_CARD.md /app/
EXPOSE 8080
USER 65532:65532
# No HEALTHCHECK: the cluster requests /healthz and /readyz.
ENTRYPOINT ["python3", "-m", "slipway.serving", "/app/bundle"]
CMD []

# The packages of batch scoring. Removed are the parts of Arrow for other formats and servers.
FROM build AS batch-build
COPY requirements/batch.txt /
WORKDIR /batch/app/packages
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-compile --no-deps \
    --only-binary=:all: --require-hashes --target . --requirement /batch.txt \
    && rm -rf bin pyarrow/include pyarrow/src pyarrow/tests pyarrow/includes pyarrow/libarrow_flight* pyarrow/_flight* \
    pyarrow/_substrait* pyarrow/_orc* pyarrow/libarrow_python.so pyarrow/libarrow_python.so.*.*.* fsspec/tests \
    && find . -depth -type f '(' -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' ')' -exec rm {} + \
    && python3 -m compileall -q -b -j 0 --invalidation-mode unchecked-hash -s /batch -p / /batch \
    && find . -name '*.py' -delete \
    && find /batch -exec touch --no-dereference --date=@0 {} +

FROM server AS batch
USER 0
COPY --from=batch-build /batch /
RUN ["python3", "-c", "import slipway.scoring.score"]
USER 65532:65532
ENTRYPOINT ["python3", "-m", "slipway.scoring", "/app/bundle"]
