/** What `--help` prints: the tool's own help, and that of each command. */
import {
  type CommandHelp,
  describeCommand,
  describeCommands,
  GLOBAL_OPTIONS,
  type OptionHelp,
  optionTerm,
} from './description.ts';
import { versionText } from './version-text.ts';

const COLUMNS = 80;

/** Formats of images and files that there are, by their names in QEMU. */
const FORMATS =
  'blkdebug compress copy-on-read file host_cdrom host_device luks null-aio null-co qcow2 raw';

/** The tool's own help. */
export function toolHelp(program: string, names: readonly string[]): string {
  const described = describeCommands(names);
  const commands = described.map(({ name, summary }) => `  ${name.padEnd(11)}${summary}\n`);
  return `${versionText(program)}usage: ${program} [--version] [--help] COMMAND [OPTIONS]

Disk images in QEMU's formats: raw, qcow2 and LUKS containers.

Commands:
${commands.join('')}  completion bash|zsh|fish
             print what a shell needs to complete command lines

Options of all commands:
${optionLines(GLOBAL_OPTIONS)}
Syntax:
${described.map(syntaxLine).join('')}
'${program} COMMAND --help' says what the options of a command are.
SIZE takes the suffixes k, M, G, T, P and E.
Supported formats: ${FORMATS}
`;
}

/** A command in one line, however long: scripts look there for an option before they use it. */
function syntaxLine({ name, operands, options }: CommandHelp): string {
  const words = [...GLOBAL_OPTIONS.slice(1), ...options].map(({ short, name: long, value }) => {
    const names = short === undefined ? `--${long}` : `-${short}|--${long}`;
    return `[${names}${value === undefined ? '' : `=${value}`}]`;
  });
  // And for what stands behind the options, in these words.
  const behind = operands
    .map((words) => words.replaceAll('FILE', 'filename').replaceAll('BITMAP', 'bitmap'))
    .toReversed();
  return `  ${[name, ...words, behind.join(' | ')].join(' ')}\n`;
}

/** The help of one command. */
export function commandHelp(program: string, name: string): string {
  const { summary, operands, options, notes } = describeCommand(name);
  const usage = operands.map(
    (words, index) =>
      `${index === 0 ? 'usage:' : '      '} ${program} ${name} [OPTIONS] ${words}\n`,
  );
  const [first = '', ...rest] = summary;
  const about = `${first.toUpperCase()}${rest.join('')}.\n`;
  const more = notes === '' ? '' : `\n${wrap(notes, 0)}`;
  return `${usage.join('')}\n${about}\nOptions:\n${optionLines(options)}
Options of all commands:\n${optionLines(GLOBAL_OPTIONS)}${more}`;
}

function optionLines(options: readonly OptionHelp[]): string {
  const terms = options.map((option) => `  ${optionTerm(option)}`);
  const width = Math.min(30, Math.max(...terms.map((term) => term.length)) + 2);
  return options
    .map(({ text }, index) => {
      const term = terms[index] as string;
      const body = wrap(text, width);
      // A term that is too long has a line of its own.
      return term.length + 2 > width ? `${term}\n${body}` : term + body.slice(term.length);
    })
    .join('');
}

/** Lines of words, indented. */
function wrap(text: string, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > COLUMNS) {
      lines.push(line);
      line = '';
    }
    line += line === '' ? word : ` ${word}`;
  }
  return [...lines, line].map((one) => `${' '.repeat(indent)}${one}\n`).join('');
}
