/** The OpenAPI document, made from the routes themselves, and its pages at /docs. */
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';

/** Of the HTTP contract, not of the package. */
const API_VERSION = '1.0.0';

/** Collects what routes say of themselves. Call it before they are added. */
export function describeRoutes(app: FastifyInstance): void {
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'downlink',
        version: API_VERSION,
        description:
          'Durable commands to devices on plain TCP. A command is stored before it is confirmed; the device’s own answer decides how it ended. Errors are problem+json with a stable `code`.',
      },
      servers: [{ url: '/' }],
      components: {
        securitySchemes: {
          apiKey: { type: 'http', scheme: 'bearer', description: 'An API key of API_KEYS' },
        },
      },
      security: [{ apiKey: [] }],
      tags: [
        { name: 'commands', description: 'What devices are asked to do' },
        { name: 'dead letters', description: 'What ended without success, and what becomes of it' },
        { name: 'devices', description: 'Who they are and where they are connected' },
        { name: 'protocols', description: 'What can be asked' },
        { name: 'operation', description: 'How the system is' },
      ],
    },
  });
}

/** Serves the document and its pages. */
export function serveDocs(app: FastifyInstance): void {
  app.register(swaggerUi, { routePrefix: '/docs' });
}
