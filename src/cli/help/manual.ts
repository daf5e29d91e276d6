/** The manual page, in the language of `man`; made when the package is built. */
import { VERSION } from '../version.ts';
import {
  type CommandHelp,
  describeCommands,
  GLOBAL_OPTIONS,
  type OptionHelp,
  optionTerm,
} from './description.ts';

/** The page of `qcow2-img`. */
export function manualPage(names: readonly string[]): string {
  const commands = describeCommands(names);
  return `.TH QCOW2\\-IMG 1 "" "qcow2 ${VERSION}" "User Commands"
.SH NAME
qcow2\\-img \\- disk images in QEMU's formats
.SH SYNOPSIS
.B qcow2\\-img
.I COMMAND
[\\fIOPTIONS\\fR]
.SH DESCRIPTION
Makes, converts, checks and changes disk images: raw, qcow2 and LUKS containers. Commands, options,
messages and exit codes are those of
.BR qemu\\-img (1).
Sizes take the suffixes k, M, G, T, P and E.
.SH COMMANDS
${commands.map(commandSection).join('')}.SH OPTIONS OF ALL COMMANDS
${GLOBAL_OPTIONS.map(optionParagraph).join('')}.TP
.B \\-V, \\-\\-version
print the version of the tool, where no command is given
.SH COMPLETION
.B qcow2\\-img completion bash|zsh|fish
prints what a shell needs to complete command lines.
.SH SEE ALSO
.BR qemu\\-img (1)
`;
}

function commandSection({ name, summary, operands, options, notes }: CommandHelp): string {
  const usage = operands.map(
    (words) => `.PP\n.B qcow2\\-img ${name}\n[\\fIOPTIONS\\fR] ${escaped(words)}\n`,
  );
  const about = `.PP\n${escaped(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)}\n`;
  const more = notes === '' ? '' : `.PP\n${escaped(notes)}\n`;
  return `.SS ${name}\n${usage.join('')}${about}${options.map(optionParagraph).join('')}${more}`;
}

function optionParagraph(option: OptionHelp): string {
  return `.TP\n.B ${escaped(optionTerm(option).trim())}\n${escaped(option.text)}\n`;
}

/** Text that formats nothing. */
function escaped(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '...')
    .replace(/^([.'])/, '\\&$1');
}
