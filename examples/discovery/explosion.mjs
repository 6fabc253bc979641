/** A service that others need, in JavaScript. It answers every request with a bang; at /slow, after two seconds. */
import { createServer } from 'node:http';
import { connect } from '../../sdk/javascript/index.js';

const routers = process.argv.slice(2);
const server = createServer(({ url }, response) => {
  setTimeout(() => response.end('boom\n'), url === '/slow' ? 2000 : 0);
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const service = connect(routers.length > 0 ? routers : ['ws://127.0.0.1:8081'], { name: 'explosion-service', port });
  service.on('connected', () => console.log(`explosion: announced at port ${port}`));
  service.on('error', ({ code, reason }) => console.error(`explosion: ${code}: ${reason}`));
  process.once('SIGTERM', async () => {
    const late = setTimeout(() => process.exit(1), 30_000);
    await service.drain();
    clearTimeout(late);
    console.log('explosion: drained');
    service.close();
    server.close();
    server.closeAllConnections();
  });
});
