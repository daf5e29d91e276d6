/**
 * Progress of a long command: what qemu-img prints, where the output is read by a program; on a
 * terminal a bar with rate and time left.
 */
import { formatFixed } from '../base/decimals.ts';
import { formatSize } from '../base/sizes.ts';
import type { ProgressMark } from '../convert/progress-marks.ts';
import type { Host } from './command.ts';

/** A display of progress. */
export interface Progress {
  readonly update: (done: number, total: number) => void;
  /** Tells just these percentages, which another count gave, each when the command gets there. */
  readonly follow?: ((marks: readonly ProgressMark[]) => void) | undefined;
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
  /** Percent that are too little for a line of their own. Default 1. */
  readonly stepPercent?: number;
}

/** Which percentages qemu-img prints: both ends, and what is more than a step from the last. */
export class PercentSteps {
  private last = 0;

  constructor(private readonly step = 1) {}

  /** Whether a percentage is printed, as those before it were. */
  next(percent: number): boolean {
    // Sums are C's `float`, too.
    const { last, step } = this;
    const isStep = percent > Math.fround(last + step) || percent < Math.fround(last - step);
    if (!isStep && percent !== 0 && percent < 100) return false;
    this.last = percent;
    return true;
  }
}

/** Prints percentages on a line that is written over. QEMU has them as C's `float`. */
export function percentPrinter(
  print: (text: string) => void,
  step?: number,
): (percent: number) => void {
  const steps = new PercentSteps(step);
  return (percent) => {
    const float = Math.fround(Math.min(100, percent));
    if (steps.next(float)) print(`${percentText(float)}\r`);
  };
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
  const print = (text: string) => (stream ? host.note(text) : host.tell(text));
  return host.terminal && !stream
    ? barProgress(print, options.total)
    : percentProgress(host, print, options);
}

const percentText = (percent: number) => `    (${formatFixed(percent, 2)}/100%)`;

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

/** qemu-img's. */
function percentProgress(
  host: Host,
  print: (text: string) => void,
  { stepPercent }: ProgressOptions,
): Progress {
  const show = percentPrinter(print, stepPercent);
  let marks: readonly ProgressMark[] | undefined;
  let told = 0;
  let shown = 0;
  show(0);
  const tellMarks = (done: number) => {
    for (; marks && told < marks.length; told++) {
      const { at, percent } = marks[told] as ProgressMark;
      if (at >= done) return;
      show(percent);
    }
  };
  return {
    update(done, total) {
      if (marks) return tellMarks(done);
      const percent = total > 0 ? (done / total) * 100 : 100;
      // Work that is done may be told of more than once.
      if (percent < 100 || shown < 100) show(percent);
      shown = percent;
    },
    follow(list) {
      marks = list;
    },
    end() {
      tellMarks(Number.POSITIVE_INFINITY);
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
