/** What a subcommand is, and what it may touch. */
import type { StartWorkers } from '../convert/pool.ts';
import type { FileDriver, NodeFileOptions, NodeFileStorage } from '../storage/node-file.ts';
import type { PipeStorage } from '../storage/node-pipe.ts';
import type { ClaimOptions } from './image-claims.ts';
import type { OptionSpec } from './options.ts';
import type { Secrets } from './secrets.ts';

/** Where a command runs: tests pass one of their own, only `host-node.ts` knows the process. */
export interface Host {
  /** The name that the tool was called by: it stands in messages. */
  readonly program: string;
  /** Standard output is a terminal: progress may draw. */
  readonly terminal: boolean;
  /** Cores to use. */
  readonly threads: number;
  readonly startWorkers: StartWorkers | undefined;
  /** Tells that so many workers will be wanted soon. */
  readonly warmWorkers?: ((count: number) => Promise<void>) | undefined;
  /**
   * Tells that what the process does first is to copy parts of files, or to read and write them:
   * the host may write in the background, one write at a time.
   */
  readonly moveInBackground?: (() => void) | undefined;
  /**
   * Writes to standard output, as it is. What cannot be written there is told at the end
   * (`unwritten`), for the command has its work to do; a reader who has left is no failure.
   */
  out(text: string): void;
  /** Writes to standard output what is being done, or was: nobody needs it to be there. */
  tell(text: string): void;
  /** Why the answer is not all there, if it is not. */
  readonly unwritten?: Error | undefined;
  /** Writes `program: message` to standard error. */
  error(message: string): void;
  /** Writes to standard error, as it is. */
  note(text: string): void;
  /** Has something done when the command has ended, and said why. */
  atEnd?(work: () => void): void;
  openFile(path: string, options?: NodeFileOptions): NodeFileStorage;
  /** Standard input as an image. */
  openInput(): Promise<NodeFileStorage>;
  /** Standard output as a target of guest bytes. */
  openOutput(): PipeStorage;
  exists(path: string): boolean;
  remove(path: string): void;
  /** When a file was last changed, in milliseconds. */
  modifiedAt(path: string): number;
  /** Bytes that the host has allocated for a file. */
  allocatedBytes(path: string): number;
  /** The real path of a file, links followed. */
  realPath(path: string): string;
  /** Secrets that the command line defines. */
  readonly secrets: Secrets;
  /** Names of nodes that are open; undefined: nobody minds. */
  nodeNames?: Set<string>;
  /** Names of images are lists of options (`--image-opts`). */
  imageOpts?: boolean;
  /** And those of targets (`--target-image-opts`). */
  targetImageOpts?: boolean;
  /** Asks for a passphrase; undefined where nobody sits at a terminal. */
  readonly askPassphrase?: ((prompt: string) => Promise<string | undefined>) | undefined;
  /** Hides the command line from those who list processes. */
  hideArguments?(): void;
  /** Calls back whenever the person asks how far the command is (SIGUSR1). */
  onProgressRequest?(tell: () => void): void;
  /** Fires when the person asks to stop (SIGINT, SIGTERM). */
  readonly interrupted: AbortSignal;
}

/** The host as one that says nothing: of what is opened a second time all has been said. */
export function silent(host: Host): Host {
  const say = () => {};
  return Object.assign(Object.create(host), { error: say, note: say });
}

/** One subcommand: `run` gives the exit code. Errors that it throws end the tool with 1. */
export interface Command {
  readonly name: string;
  /** What it takes; `help/commands-described.ts` says what for. */
  readonly options: readonly OptionSpec[];
  /** The last argument is an operand, whatever it looks like. */
  readonly lastIsOperand?: boolean;
  /** Words behind its name that it needs, whatever they are. */
  readonly argumentsMin?: number;
  run(args: readonly string[], host: Host): Promise<number>;
}

/** A message for the person, to be printed as it is; `hint` adds the pointer to `--help`. */
export class UsageError extends Error {
  constructor(
    message: string,
    readonly hint = false,
    readonly exitCode = 1,
    /** More messages, told one after another. */
    readonly further: readonly string[] = [],
  ) {
    super(message);
  }
}

/** How a command opens the images it is given, and what those name. */
export interface GateOptions {
  /** Names inside images may not leave the folder of the image that was named first. */
  readonly untrusted: boolean;
  /** What the files are claimed for, among those who lock images; absent: for nothing. */
  readonly claim?: ClaimOptions | undefined;
  /** The kind of file that they have to be; absent: whatever they are. */
  readonly driver?: FileDriver | undefined;
}
