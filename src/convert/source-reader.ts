/**
 * The reading half of the data plane: brings the bytes of operations into linear memory, plain ones
 * straight to where they are wanted, streams through an input buffer that holds as many
 * neighbouring ones as one read brings in.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { atGuest, isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { decodeFailure, decodeInto } from '../codec/codec.ts';
import { CipherStorage } from '../crypto/cipher-storage.ts';
import { GuestCipherStorage } from '../crypto/guest-cipher-storage.ts';
import type { Region, Workspace } from '../kernels/arena.ts';
import { INPUT_SLACK } from '../kernels/kernels.ts';
import type { Storage } from '../storage/storage.ts';
import { isStream, OP_STRIDE, OpKind } from './job.ts';
import { addLost, emptyTally } from './runner.ts';

const INPUT_BYTES = 1024 * 1024;
/** A gap between two streams that is read along rather than read around. */
const STREAM_GAP = 64 * 1024;
/** The least that is salvaged by itself; and of a read that failed, into how many parts it goes. */
const SALVAGE_BYTES = 512;
const SALVAGE_PARTS = 4;
/** What of a compressed cluster is lost, is lost as a whole, whatever its damage is. */
const CLUSTER_LOST = 'Input/output error';

/** A read of a source: where, and what is to be filled; as `Storage.read`. */
type ReadAt = (at: number, into: Uint8Array) => Awaitable<number>;

/** Reads what operations say. One operation at a time. */
export class SourceReader {
  readonly tally = emptyTally();
  private readonly input: Region;
  private readonly cluster: Region;
  /** Which bytes `input` holds: of which source, from where to where. */
  private inputSource = -1;
  private inputFrom = 0;
  private inputTo = 0;
  /** How far the last read was meant to reach: beyond `inputTo` where the file ended first. */
  private inputEnd = 0;
  /** Bytes of `input` that could not be read, as pairs: from, to. */
  private readonly inputLost: number[] = [];

  constructor(
    workspace: Workspace,
    private readonly sources: readonly Storage[],
    private readonly options: {
      readonly clusterSizeMax: number;
      readonly salvage?: boolean;
      /** Operations do not say where in the disk they are. */
      readonly placeless?: boolean;
    },
  ) {
    const { clusterSizeMax } = options;
    this.input = workspace.reserve(Math.max(INPUT_BYTES, 2 * clusterSizeMax + 512) + INPUT_SLACK);
    this.cluster = workspace.reserve(Math.max(clusterSizeMax, 1));
    // What they decrypt is wanted in this memory: there is where they do it.
    for (const source of sources) {
      const decrypts = source instanceof CipherStorage || source instanceof GuestCipherStorage;
      if (decrypts) source.workIn(workspace);
    }
  }

  /**
   * Reads plain bytes of an operation, from byte `done` of it on; past the source's end there are
   * zeros.
   */
  copy(ops: Float64Array, op: number, done: number, into: Uint8Array): Awaitable<void> {
    const storage = this.sources[ops[op + 1]!] as Storage;
    const host = ops[op + 2]! + done;
    // Where in the disk the bytes are, for whoever is told that they cannot be read.
    const guest = ops[op + 4]! + done;
    const shift = ops[op + 6]! - ops[op + 2]!;
    const readAt: ReadAt =
      storage instanceof GuestCipherStorage
        ? (at, part) => storage.readPlaced(at, at + shift, part)
        : (at, part) => storage.read(at, part);
    this.tally.bytesRead += into.length;
    const finish = (got: number) => {
      if (got < into.length) into.fill(0, got);
    };
    if (this.options.salvage) {
      const { lost } = this.tally;
      const lose = (at: number, length: number, why: string) =>
        addLost(lost, { guest: guest + at, length, why });
      return this.salvage({ readAt, lose }, host, into, 0).then(finish);
    }
    const bring = () => {
      const read = this.readFrom(readAt, host, into, guest);
      if (!settled(read)) return read.then(finish);
      finish(read);
    };
    const held = storage.announce?.('read_aio');
    return held ? held.then(bring) : bring();
  }

  /** A read that tells, where it fails, of what part of the disk it was. */
  private readFrom(
    readAt: ReadAt,
    host: number,
    into: Uint8Array,
    guest: number,
  ): Awaitable<number> {
    const fail = (cause: unknown): never => {
      throw this.options.placeless ? cause : atGuest(cause, guest);
    };
    try {
      const read = readAt(host, into);
      return settled(read) ? read : read.catch(fail);
    } catch (cause) {
      return fail(cause);
    }
  }

  /** Makes sure that an operation's stream is in memory; undefined where it is already. */
  load(ops: Float64Array, op: number): Promise<void> | undefined {
    if (this.holds(ops, op)) return undefined;
    const index = ops[op + 1]!;
    const from = ops[op + 2]!;
    const to = this.streamsEnd(ops, op);
    const finish = (got: number) => {
      this.inputSource = index;
      this.inputFrom = from;
      this.inputTo = from + got;
      this.inputEnd = to;
      this.tally.bytesRead += got;
    };
    this.inputSource = -1;
    const storage = this.sources[index] as Storage;
    const readAt: ReadAt = (at, part) => storage.read(at, part);
    const into = this.input.bytes.subarray(0, to - from);
    this.inputLost.length = 0;
    if (this.options.salvage) {
      const lose = (at: number, length: number) =>
        this.inputLost.push(from + at, from + at + length);
      return this.salvage({ readAt, lose }, from, into, 0).then(finish);
    }
    const bring = () => {
      const read = this.readFrom(readAt, from, into, ops[op + 4]!);
      if (!settled(read)) return read.then(finish);
      finish(read);
      return undefined;
    };
    const held = storage.announce?.('read_compressed');
    return held ? held.then(bring) : bring();
  }

  /**
   * Decodes the cluster of an operation whose stream was loaded.
   * @param at address in the workspace's memory, with room for the operation's length
   * @throws Qcow2Error CORRUPT
   */
  decode(ops: Float64Array, op: number, at: number): void {
    const length = ops[op + 5]!;
    const skip = ops[op + 6]!;
    const clusterSize = ops[op + 7]!;
    const host = ops[op + 2]!;
    const whole = length === clusterSize;
    const codec = ops[op] === OpKind.zstd ? 'zstd' : 'deflate';
    const result = decodeInto(this.input.kernels, codec, {
      src: this.input.at + host - this.inputFrom,
      srcBytes: Math.max(0, Math.min(ops[op + 3]!, this.inputTo - host)),
      dst: whole ? at : this.cluster.at,
      dstBytes: clusterSize,
    });
    if (result !== clusterSize || this.isLost(host, ops[op + 3]!)) {
      if (!this.options.salvage) {
        const failure = decodeFailure(result, codec, host);
        throw this.options.placeless ? failure : atGuest(failure, ops[op + 4]!);
      }
      this.memory.fill(0, at, at + length);
      addLost(this.tally.lost, { guest: ops[op + 4]!, length, why: CLUSTER_LOST });
    } else if (!whole) {
      const from = this.cluster.at + skip;
      this.memory.copyWithin(at, from, from + length);
    }
  }

  private isLost(host: number, length: number): boolean {
    const { inputLost } = this;
    for (let pair = 0; pair < inputLost.length; pair += 2) {
      if (inputLost[pair]! < host + length && host < inputLost[pair + 1]!) return true;
    }
    return false;
  }

  /** All of the workspace's memory, by address. */
  get memory(): Uint8Array {
    this.view ??= new Uint8Array(this.input.kernels.memory.buffer);
    return this.view;
  }
  private view: Uint8Array | undefined;

  private holds(ops: Float64Array, op: number): boolean {
    if (this.inputSource !== ops[op + 1]) return false;
    const host = ops[op + 2]!;
    return host >= this.inputFrom && host + ops[op + 3]! <= this.inputEnd;
  }

  /** Where a read ends that brings in a stream and those of the following ones that lie close. */
  private streamsEnd(ops: Float64Array, first: number): number {
    const index = ops[first + 1]!;
    const from = ops[first + 2]!;
    const room = this.input.length - INPUT_SLACK;
    let to = from + ops[first + 3]!;
    for (let op = first + OP_STRIDE; op < ops.length; op += OP_STRIDE) {
      if (!isStream(ops[op]!) || ops[op + 1] !== index) break;
      const host = ops[op + 2]!;
      const end = host + ops[op + 3]!;
      if (host < from || host > to + STREAM_GAP || end - from > room) break;
      if (end > to) to = end;
    }
    if (to - from > room) throw new Qcow2Error('CORRUPT', 'compressed cluster is too long', from);
    return to;
  }

  /** Reads what can be read, and zeros elsewhere: ever smaller parts of what fails. */
  private async salvage(
    from: {
      readonly readAt: ReadAt;
      readonly lose: (at: number, length: number, why: string) => void;
    },
    host: number,
    into: Uint8Array,
    start: number,
  ): Promise<number> {
    try {
      return await from.readAt(host, into);
    } catch (cause) {
      if (!isQcow2Error(cause, 'IO')) throw cause;
      if (into.length <= SALVAGE_BYTES) {
        into.fill(0);
        from.lose(start, into.length, cause.message);
        return into.length;
      }
    }
    const sectors = Math.ceil(into.length / SALVAGE_BYTES / SALVAGE_PARTS);
    const part = sectors * SALVAGE_BYTES;
    for (let at = 0; at < into.length; at += part) {
      const piece = into.subarray(at, at + part);
      piece.fill(0, await this.salvage(from, host + at, piece, start + at));
    }
    return into.length;
  }
}
