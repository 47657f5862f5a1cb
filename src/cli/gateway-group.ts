/** Several gateway processes on one port of this machine: each has its own id and admin address. */
import { type Addr, parseAddr } from '../config/addr.ts';
import type { Config } from '../config/config.ts';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { type RoleProcess, startRole } from './role-process.ts';
import { type SupervisedRole, superviseRole } from './supervised-role.ts';

export const maxGateways = 64;

export type GatewayGroup = {
  /** Hands a signal on to every gateway. */
  signal(signal: NodeJS.Signals): void;
  /** Ends them all at once. */
  end(): Promise<void>;
};

export type GatewayGroupDeps = {
  config: Config;
  count: number;
  /** Of the processes, before what makes them differ. */
  env: NodeJS.ProcessEnv;
  onReady: (process: RoleProcess) => void;
  onLog: (text: string) => void;
  log: Log;
};

const maxPort = 65_535;

/** Starts them; resolves when all are ready. When one does not become ready, none stays. */
export async function startGatewayGroup(deps: GatewayGroupDeps): Promise<GatewayGroup> {
  const { config, count, onReady, onLog, log } = deps;
  const adminAddrs = adminAddrsOf(config, count);
  const shared: NodeJS.ProcessEnv = { ...deps.env };
  if (count > 1) shared['DOWNLINK_TCP_REUSE_PORT'] = 'true';

  const start = (adminAddr: string) =>
    superviseRole({
      // read at each start: the ports that the first has chosen are those of all, and of their successors
      launch: () =>
        startRole({ role: 'gateway', env: { ...shared, GATEWAY_ADMIN_ADDR: adminAddr }, onLog }),
      onReady,
      log,
    });

  const [firstAdmin = config.gateway.adminAddr, ...otherAdmins] = adminAddrs;
  const first = await start(firstAdmin);
  const { tcp, tls } = first.current.ready;
  if (tcp) shared['TCP_ADDR'] = withPortOf(config.tcp.addr, tcp);
  if (tls && config.tls.addr) shared['TLS_ADDR'] = withPortOf(config.tls.addr, tls);

  const others = await Promise.allSettled(otherAdmins.map(start));
  const gateways: SupervisedRole[] = [first];
  for (const other of others) if (other.status === 'fulfilled') gateways.push(other.value);
  const end = async () => {
    await Promise.all(gateways.map((gateway) => gateway.end()));
  };
  const failed = others.find((other) => other.status === 'rejected');
  if (failed) {
    await end();
    throw failed.reason;
  }
  return {
    signal(signal) {
      for (const gateway of gateways) gateway.signal(signal);
    },
    end,
  };
}

/**
 * The configured admin address for the first, the ports behind it for the others, without those that
 * other roles of the same configuration have. Port 0 stays 0 for all.
 */
export function adminAddrsOf(config: Config, count: number): string[] {
  const { gateway, worker, http, tcp, tls } = config;
  const base = parseAddr(gateway.adminAddr);
  if (base.port === 0) return Array.from({ length: count }, () => gateway.adminAddr);
  const others = [worker.adminAddr, http.addr, tcp.addr, ...(tls.addr ? [tls.addr] : [])];
  const taken = new Set(others.map((addr) => parseAddr(addr).port));
  const addrs = [gateway.adminAddr];
  for (let port = base.port + 1; addrs.length < count; port += 1) {
    if (port > maxPort) {
      const text = `gateway.admin_addr ${gateway.adminAddr} leaves no ports for ${count} gateways below ${maxPort + 1}; choose a lower port, or 0`;
      throw new DownlinkError('CONFIG_INVALID', text);
    }
    if (!taken.has(port)) addrs.push(textOf({ ...base, port }));
  }
  return addrs;
}

/** The host that is configured with the port that was chosen. */
function withPortOf(configured: string, chosen: string): string {
  return textOf({ ...parseAddr(configured), port: parseAddr(chosen).port });
}

function textOf({ host = '', port }: Addr): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}
