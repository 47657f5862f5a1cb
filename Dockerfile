FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY queues ./queues
COPY workers ./workers
COPY dashboard ./dashboard
RUN npm run build

FROM node:24-slim AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The optional packages bring Node and PostgreSQL to machines that lack them: not needed in here.
RUN npm ci --omit=dev --omit=optional

FROM node:24-slim
WORKDIR /app
ENV NODE_ENV=production
COPY --from=modules /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json ./
USER node
# API, devices, metrics and health of the gateway, of the worker.
EXPOSE 8080 9999 9101 9102
ENTRYPOINT ["node", "dist/src/cli/main.js"]
CMD ["--help"]
