/** Options that commands share: `--help`, `--object`, `--image-opts` where images are opened. */
import { type Command, type Host, UsageError } from './command.ts';
import { takeOptions } from './getopt.ts';
import type { OptionGiven, OptionSpec } from './options.ts';

const HELP: OptionSpec = { name: 'help', short: 'h', value: false };
const OBJECT: OptionSpec = { name: 'object', value: true };
const IMAGE_OPTS: OptionSpec = { name: 'image-opts', value: false };

/** Defines what an option's text describes. @throws UsageError */
type DefineObject = (host: Host, text: string) => void;

/** May begin `--object`, abbreviated or whole. */
const OBJECT_BEGINS = /^--o(=|$|b)/;

/** How objects are defined, where the command line has any. */
export async function definitionOf(args: readonly string[]): Promise<DefineObject | undefined> {
  if (!args.some((arg) => OBJECT_BEGINS.test(arg))) return undefined;
  return (await import('./object-definition.ts')).defineObject;
}

/** What a command does not have of them, as in QEMU. */
const LACKS: Readonly<Record<string, OptionSpec>> = { bench: OBJECT, create: IMAGE_OPTS };

/**
 * Takes them out of a command's arguments, tells the host, and defines secrets, in the order they
 * are given.
 * @param define what `definitionOf` gives for the arguments
 * @returns what is left for the command; undefined where it is asked for help
 * @throws UsageError for options that the command does not have
 */
export function takeGlobalOptions(
  host: Host,
  command: Command,
  args: readonly string[],
  define?: DefineObject,
): string[] | undefined {
  const isHelp = /^(-h|--help)$/.test(args.at(-1) ?? '');
  if (!isHelp && args.length < (command.argumentsMin ?? 0)) {
    throw new UsageError('Not enough arguments', true);
  }
  const global = [HELP, OBJECT, IMAGE_OPTS].filter((spec) => spec !== LACKS[command.name]);
  const own = command.options.filter(({ name }) => !global.some((spec) => spec.name === name));
  const isOperand = command.lastIsOperand && !isHelp;
  const last = isOperand ? args.slice(-1) : [];
  let help = false;
  const specs = [...own, ...global];
  const earlier: OptionGiven[] = [];
  const rest = takeOptions(
    command.name,
    args.slice(0, args.length - last.length),
    specs,
    (option) => {
      const { name, value } = option;
      help = name === HELP.name;
      if (help) return 'end';
      if (name === OBJECT.name) takeObject(host, command, { value, define });
      else if (name === IMAGE_OPTS.name) host.imageOpts = true;
      else if (name === 'target-image-opts') host.targetImageOpts = true;
      else {
        specs.find((spec) => spec.name === name)?.check?.(value, earlier, host);
        earlier.push(option);
        return 'left';
      }
      return 'taken';
    },
  );
  return help ? undefined : [...rest, ...last];
}

function takeObject(
  host: Host,
  { name }: Command,
  { value, define }: { readonly value: string; readonly define: DefineObject | undefined },
): void {
  try {
    define?.(host, value);
  } catch (cause) {
    // 1 tells of disks that differ.
    if (name !== 'compare' || !(cause instanceof UsageError)) throw cause;
    throw Object.assign(cause, { exitCode: 2 });
  }
}
