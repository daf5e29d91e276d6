/** Options that every command takes: `--object`, and `--image-opts` where images are opened. */
import type { Host } from './command.ts';
import { UsageError } from './command.ts';

/** What is left of a command line without them. */
export interface GlobalOptions {
  readonly rest: readonly string[];
  /** Texts of `--object`, in their order. */
  readonly objects: readonly string[];
  readonly imageOpts: boolean;
  readonly targetImageOpts: boolean;
}

/** @throws UsageError where a value is missing */
export function takeGlobalOptions(args: readonly string[]): GlobalOptions {
  const rest: string[] = [];
  const objects: string[] = [];
  let imageOpts = false;
  let targetImageOpts = false;
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] as string;
    if (arg === '--') {
      rest.push(...args.slice(at));
      break;
    }
    if (arg === '--object') {
      const value = args[++at];
      if (value === undefined) {
        throw new UsageError(`missing argument for option '${arg}'`, true);
      }
      objects.push(value);
    } else if (arg.startsWith('--object=')) objects.push(arg.slice('--object='.length));
    else if (arg === '--image-opts') imageOpts = true;
    else if (arg === '--target-image-opts') targetImageOpts = true;
    else rest.push(arg);
  }
  return { rest, objects, imageOpts, targetImageOpts };
}

/** Defines the secrets, and hides them from those who list processes. */
export function defineObjects(host: Host, objects: readonly string[]): void {
  if (objects.length === 0) return;
  host.hideArguments?.();
  for (const text of objects) host.secrets.add(host, text);
}
