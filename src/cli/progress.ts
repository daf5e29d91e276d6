/**
 * Progress of a long command: what qemu-img prints, where the output is read by a program; on a
 * terminal a bar with rate and time left.
 */
import { formatSize } from '../base/sizes.ts';
import type { Host } from './command.ts';

/** A display of progress. */
export interface Progress {
  readonly update: (done: number, total: number) => void;
  /** All is done. */
  end(): void;
  /** The command failed: leaves what is shown as it is. */
  stop(): void;
}

/** What to show, and whether at all. */
export interface ProgressOptions {
  readonly enabled: boolean;
  /** What there is to do, as far as that is known without an update. */
  readonly total: () => number;
  /** Standard output carries the disk: the display goes to standard error. */
  readonly stream: boolean;
  /** Percent between two lines, of a command that tells of every step. */
  readonly stepPercent?: number;
}

/** Between two updates of a bar, milliseconds. */
const REDRAW_MS = 100;
const BAR_CELLS = 30;

/** Starts the display that fits the host. */
export function startProgress(host: Host, options: ProgressOptions): Progress {
  const { enabled, stream } = options;
  if (!enabled) return askedProgress(host);
  // Whoever sees it needs not ask.
  host.onProgressRequest?.(() => {});
  const print = (text: string) => (stream ? host.note(text) : host.out(text));
  return host.terminal && !stream
    ? barProgress(print, options.total)
    : percentProgress(host, print, options);
}

const percentText = (percent: number) => `    (${percent.toFixed(2)}/100%)`;

/** Nothing, but a line whenever somebody asks. */
function askedProgress(host: Host): Progress {
  let percent = 0;
  host.onProgressRequest?.(() => host.note(`${percentText(percent)}\n`));
  return {
    update(done, total) {
      percent = total > 0 ? (done / total) * 100 : 100;
    },
    end() {},
    stop() {},
  };
}

/** qemu-img's: a line that is written over, a step for each percent. */
function percentProgress(
  host: Host,
  print: (text: string) => void,
  { stepPercent }: ProgressOptions,
): Progress {
  let shown = Number.NEGATIVE_INFINITY;
  let updates = 0;
  const show = (percent: number) => {
    shown = percent;
    print(`${percentText(percent)}\r`);
  };
  show(0);
  return {
    update(done, total) {
      const percent = total > 0 ? (done / total) * 100 : 100;
      // All at once, with nothing before it: nothing to do, of which qemu-img tells no step.
      if (updates++ === 0 && percent === 100 && stepPercent === undefined) return;
      if (percent >= shown + (stepPercent ?? 1) || (percent === 100 && shown < 100)) show(percent);
    },
    end() {
      // After the last step once more: qemu-img says it twice unless there is nothing to do.
      show(100);
      print('\n');
    },
    stop() {
      // Behind what the command has to say of its failure, as with qemu-img.
      if (host.atEnd) host.atEnd(() => print('\n'));
      else print('\n');
    },
  };
}

/** Seconds as people read them: 0:07, 1:02:33. */
function formatTime(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

function barProgress(print: (text: string) => void, total: () => number): Progress {
  const start = performance.now();
  let last = Number.NEGATIVE_INFINITY;
  let whole: number | undefined;
  const draw = (done: number, total: number) => {
    const part = total > 0 ? done / total : 1;
    const seconds = (performance.now() - start) / 1000;
    const cells = Math.round(part * BAR_CELLS);
    const bar = '█'.repeat(cells) + '░'.repeat(BAR_CELLS - cells);
    const percent = `${Math.floor(part * 100)}%`.padStart(4);
    const rate = seconds > 0 ? `${formatSize(done / seconds)}/s` : '';
    const left =
      done > 0 && done < total ? `${formatTime((seconds * (1 - part)) / part)} left` : '';
    const size = `${formatSize(done)} of ${formatSize(total)}`;
    print(`\r\x1b[K${bar}${percent}  ${size}  ${rate}  ${left}`);
  };
  return {
    update(done, of) {
      whole = of;
      const now = performance.now();
      if (now - last < REDRAW_MS) return;
      last = now;
      draw(done, of);
    },
    end() {
      const all = whole ?? total();
      draw(all, all);
      print('\n');
    },
    stop() {
      print('\n');
    },
  };
}
