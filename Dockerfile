# syntax=docker/dockerfile:1
# The base is Debian alone; Node comes from the npm package `node`, its version and checksum held by package-lock.json.
ARG DEBIAN=debian:12.12-slim

FROM ${DEBIAN} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /parley
COPY package.json package-lock.json ./
# Debian's Node is older than some packages allow, and npm leaves optional ones out then without a word, the console's bundler
# among them: Node and npm of our own install the rest. For registries behind a certificate of one's own both take a secret
# `authorities`: a list of authorities that no layer keeps.
ARG NODE_EXTRA_CA_CERTS
RUN --mount=type=secret,id=authorities,target=/run/authorities.crt \
    npm install --no-save --no-audit --no-fund --loglevel=error --prefix /tools npm@11.19.1 \
    "node@$(node -p 'require("./package.json").devDependencies.node')"
ENV PATH=/tools/node_modules/.bin:$PATH
RUN --mount=type=secret,id=authorities,target=/run/authorities.crt \
    npm install --no-save --no-audit --no-fund --loglevel=error
# The console's tsconfig.json extends the project's.
COPY tsconfig.json ./
COPY gen gen
COPY client client
COPY web web
RUN npm run build:console
COPY README.md CHANGELOG.md CONTRIBUTING.md ./
COPY bench/README.md bench/README.md
COPY docs docs
COPY examples examples
COPY helm helm
# Pages link to these; they go along.
COPY Dockerfile wrangler.json ./
COPY proto proto
COPY sidecar sidecar
COPY src src
RUN npm run build:docs

FROM build AS production
ARG NODE_EXTRA_CA_CERTS
# The same lock, without the dev dependencies; the Node program is all that stays of them.
RUN --mount=type=secret,id=authorities,target=/run/authorities.crt \
    cp "$(readlink -f node_modules/.bin/node)" /usr/local/bin/node \
 && npm prune --omit=dev --no-audit --no-fund --loglevel=error

FROM ${DEBIAN}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libatomic1 libstdc++6 tini \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
COPY --from=production /usr/local/bin/node /usr/local/bin/node
WORKDIR /parley
COPY --from=production /parley/node_modules node_modules
COPY --from=production /parley/web/dist web/dist
COPY --from=production /parley/docs/.vitepress/dist docs/.vitepress/dist
COPY package.json LICENSE ./
COPY gen gen
COPY src src
COPY sidecar sidecar
# `parley gate` and the check of an upgrade, in Jobs; and the shadow that a mirror sends to.
COPY bin bin
COPY gate gate
COPY standalone standalone
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080 OPS_PORT=9090
EXPOSE 8080 9090 8081 9091
# No name: Kubernetes' runAsNonRoot checks a number. Nothing is written to the file system.
USER 65532:65532
ENTRYPOINT ["tini", "--", "node"]
CMD ["src/main.ts"]
