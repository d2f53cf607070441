ARG NODE=20
FROM busybox AS deps
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm,id=npm,sharing=locked npm ci --omit=dev
FROM busybox AS final
ENV NODE_ENV=production \
    PORT=3000
WORKDIR /app
COPY --from=deps --chown=1000:1000 /app/node_modules ./node_modules
COPY . .
USER 1000
EXPOSE 3000 3001-3003/udp
HEALTHCHECK --interval=30s --timeout=3s --retries=5 CMD wget -q localhost:${PORT} || exit 1
ENTRYPOINT ["node"]
CMD ["server.js"]
