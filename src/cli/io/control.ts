/** Commands about the tool itself: `help`, `quit`, `sleep`, and ways to end it the hard way. */
import { CommandFailure, type IoCommand, usageLine } from './io-command.ts';
import { ABORT_SIGNAL } from './io-host.ts';
import { parseBytes, parseInteger } from './number.ts';

/** The longest time that a timer takes, in milliseconds. */
const SLEEP_MS_MAX = 2 ** 31 - 1;
/** One more than there are: QEMU's tool lets it pass, and nothing happens. */
const SIGNAL_MAX = 65;

/** `help`. */
export const help: IoCommand = {
  name: 'help',
  alias: '?',
  synopsis: '[command]',
  summary: 'help for one or all commands',
  count: [0, 1],
  needs: 'nothing',

  async run({ host }, [name]) {
    const { COMMANDS, findCommand } = await import('./commands.ts');
    if (name === undefined) {
      const lines = COMMANDS.map((command) => `${usageLine(command, command.name)}\n`);
      host.out(`${lines.join('')}\nUse 'help commandname' for extended help.\n`);
      return;
    }
    const command = findCommand(name);
    if (!command) throw new CommandFailure(`command ${name} not found`);
    host.out(`${usageLine(command, name)}\n${command.details ?? ''}`);
  },
};

/** `quit`. */
export const quit: IoCommand = {
  name: 'quit',
  alias: 'q',
  summary: 'exit the program',
  needs: 'nothing',

  async run(session) {
    session.done = true;
  },
};

/** `sleep`. Requests in the background go on, and report. */
export const sleep: IoCommand = {
  name: 'sleep',
  summary: 'waits for the given value in milliseconds',
  count: [1, 1],
  needs: 'nothing',

  async run(session, [text]) {
    const time = parseInteger(text!);
    if (time === undefined || time < 0) throw new CommandFailure(`${text} is not a valid number`);
    const slept = new Promise((resolve) => setTimeout(resolve, Math.min(time, SLEEP_MS_MAX)));
    await session.settle();
    await slept;
  },
};

/** `abort`: what a crash leaves behind. Nothing is flushed or closed. */
export const abort: IoCommand = {
  name: 'abort',
  summary: 'simulate a program crash using abort(3)',
  needs: 'nothing',

  async run({ host }) {
    host.raise(ABORT_SIGNAL);
  },
};

/** `sigraise`. */
export const sigraise: IoCommand = {
  name: 'sigraise',
  synopsis: 'signal',
  summary: 'raises a signal',
  details: `
Sends this process a signal by its number.
`,
  count: [1, 1],
  needs: 'nothing',

  async run(session, args) {
    const signal = parseBytes(session, args[0]!);
    if (signal > SIGNAL_MAX) {
      const what = `signal argument '${args[0]}'`;
      throw new CommandFailure(`${what} is too large to be a valid signal`);
    }
    session.host.raise(signal);
  },
};

/** A command about breakpoints, which only QEMU's debugging driver has: no disk here does. */
function breakpoint(
  name: string,
  synopsis: string,
  summary: string,
  failure: (tag: string) => string,
): IoCommand {
  const count = synopsis.split(' ').length;
  return {
    name,
    synopsis,
    summary,
    count: [count, count],
    needs: 'disk',

    async run(_, args) {
      throw new CommandFailure(`${failure(args.at(-1)!)}: Operation not supported`);
    },
  };
}

/** `break`. */
export const setBreak = breakpoint(
  'break',
  'event tag',
  'sets a breakpoint on event and tags the stopped request as tag',
  () => 'Could not set breakpoint',
);

/** `remove_break`. */
export const removeBreak = breakpoint(
  'remove_break',
  'tag',
  'remove a breakpoint by tag',
  (tag) => `Could not remove breakpoint ${tag}`,
);

/** `resume`. */
export const resume = breakpoint(
  'resume',
  'tag',
  'resumes the request tagged as tag',
  () => 'Could not resume request',
);

/** `wait_break`. QEMU's tool waits for ever where there is no breakpoint. */
export const waitBreak = breakpoint(
  'wait_break',
  'tag',
  'waits for the suspension of a request',
  () => 'Could not wait for a request',
);
