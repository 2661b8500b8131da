#include "tools/command.h"

#include <pwd.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace mirage {

std::atomic<bool> g_interrupted{false};

namespace {

// Never an errno of the system: marks errors of usage on their way to the dispatcher.
constexpr int kUsageCode = 100'000;

void AskToStop(int) {
  // The second time the user means it; what was staged is removed by the next writer.
  if (g_interrupted.exchange(true)) _exit(kExitInterrupted);
}
void StopAtOnce(int) { _exit(kExitInterrupted); }

void SetSignals(bool stages) {
  struct sigaction action {};
  action.sa_handler = stages ? AskToStop : StopAtOnce;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    // nohup's SIG_IGN stays as it is.
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN && signal == SIGHUP) continue;
    sigaction(signal, &action, nullptr);
  }
  // A reader of ours that goes away ends us, as it ends cat(1), whatever our parent ignored; but not in the middle of
  // an import, whose appliance is spoken to through a socket.
  action.sa_handler = stages ? SIG_IGN : SIG_DFL;
  sigaction(SIGPIPE, &action, nullptr);
}

std::string DefaultLibrary() {
  if (const char* path = std::getenv("MIRAGE_LIBRARY"); path != nullptr && *path != '\0') return path;
  if (geteuid() == 0) return "/var/lib/mirage";
  if (const char* data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data == '/')
    return std::string(data) + "/mirage";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') {
    const passwd* user = getpwuid(geteuid());
    home = user != nullptr ? user->pw_dir : "/nonexistent";
  }
  return std::string(home) + "/.local/share/mirage";
}

// One line, whatever the message holds. A message that begins with the verb already is not given it twice.
void PrintError(std::string_view verb, std::string_view message) {
  if (message.starts_with(verb) && message.size() > verb.size() &&
      (message[verb.size()] == ' ' || message[verb.size()] == ':')) {
    message.remove_prefix(verb.size() + (message[verb.size()] == ' ' ? 1 : 0));
  }
  std::string line = fmt::format("mirage{}{}{}{}", verb.empty() ? "" : ": ", verb,
                                 verb.empty()               ? ": "
                                 : message.starts_with(':') ? ""
                                                            : " ",
                                 message);
  while (!line.empty() && line.back() == '\n') line.pop_back();
  std::replace(line.begin(), line.end(), '\n', ' ');
  if (isatty(STDERR_FILENO)) line = EscapeBytes(line);
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

std::string Overview() {
  std::string text =
      "Usage: mirage [-L LIBRARY] VERB ...\n"
      "Keeps versions of virtual machine images as files: import, mount, diff, edit, commit.\n\nVerbs:\n";
  for (const Verb& verb : Verbs()) text += fmt::format("  {:<8} {}\n", verb.name, verb.summary);
  text +=
      "\nFor every verb:\n"
      "  -L,--library DIR  the library; else $MIRAGE_LIBRARY, else /var/lib/mirage for root\n"
      "                    and $XDG_DATA_HOME/mirage for others\n"
      "  --json            one JSON object a line\n"
      "  -q,--quiet        no talk on stderr, errors only\n"
      "  -h,--help         help; `mirage VERB --help` for a verb\n"
      "A version is BRANCH, BRANCH/TAG, either with ~N behind it, or @ID; V:PATH is a path in it, A..B a range.\n";
  return text;
}

struct Globals {
  std::string library, verb;
  bool json = false, quiet = false, help = false, version = false;
  std::vector<std::string> rest;
};

// What stands before the verb.
Status ParseGlobals(std::span<const std::string> arguments, Globals* globals) {
  size_t i = 0;
  for (; i < arguments.size() && arguments[i].starts_with('-'); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "-L" || argument == "--library") {
      if (i + 1 == arguments.size()) return Fail(EINVAL, "{}: needs a directory behind it", argument);
      globals->library = arguments[++i];
    } else if (argument.starts_with("--library=")) {
      globals->library = argument.substr(10);
    } else if (argument.starts_with("-L")) {
      globals->library = argument.substr(2);
    } else if (argument == "--json") {
      globals->json = true;
    } else if (argument == "-q" || argument == "--quiet") {
      globals->quiet = true;
    } else if (argument == "-h" || argument == "--help") {
      globals->help = true;
    } else if (argument == "--version") {
      globals->version = true;
    } else {
      return Fail(EINVAL, "{}: unknown option; try `mirage --help`", argument);
    }
  }
  if (i < arguments.size()) {
    globals->verb = arguments[i];
    globals->rest.assign(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1, arguments.end());
  }
  return {};
}

int RunVerb(const Verb& verb, Globals globals) {
  Session session;
  session.verb = verb.name;
  if (verb.traits.takes_paths) {
    const auto dashes = std::find(globals.rest.begin(), globals.rest.end(), "--");
    if (dashes != globals.rest.end()) {
      session.paths.assign(dashes + 1, globals.rest.end());
      globals.rest.erase(dashes, globals.rest.end());
    }
  }
  Options options(verb.name, verb.synopsis, verb.summary);
  const Action action = verb.declare(options);
  bool nul = false;
  options.Value("-L,--library", globals.library, "the library's directory");
  options.Flag("--json", globals.json, "one JSON object a line");
  options.Flag("-q,--quiet", globals.quiet, "no talk on stderr, errors only");
  if (verb.traits.prints_paths) options.Flag("-0,--null", nul, "end each record with a NUL byte, escape nothing");

  Status parsed = options.Parse(std::move(globals.rest));
  if (!parsed) {
    PrintError(verb.name, fmt::format(": {}; try `mirage {} --help`", parsed.error().message, verb.name));
    return verb.traits.usage;
  }
  if (options.help_wanted()) {
    std::fputs(options.Help().c_str(), stdout);
    return std::fflush(stdout) == 0 ? kExitDone : verb.traits.trouble;
  }
  session.library_path = globals.library.empty() ? DefaultLibrary() : globals.library;
  while (session.library_path.size() > 1 && session.library_path.back() == '/') session.library_path.pop_back();
  session.json = globals.json;
  session.quiet = globals.quiet;
  Output out(nul, isatty(STDOUT_FILENO) && !nul);
  session.out = &out;
  SetSignals(verb.traits.stages);

  Result<int> code = action(session);
  // What was printed before the error still belongs in front of it.
  if (Status written = out.Finish(); code && !written) code = tl::make_unexpected(std::move(written).error());
  if (code) return *code;
  if (code.error().code == kUsageCode) {
    PrintError(verb.name, fmt::format(": {}; try `mirage {} --help`", code.error().message, verb.name));
    return verb.traits.usage;
  }
  if (verb.traits.stages && g_interrupted) {
    PrintError(verb.name, ": interrupted; the library is as it was before");
    return kExitInterrupted;
  }
  PrintError(verb.name, code.error().message);
  return verb.traits.trouble;
}

}  // namespace

tl::unexpected<Error> UsageError(std::string message) {
  return tl::make_unexpected(Error{kUsageCode, std::move(message)});
}

void Session::Say(std::string_view line) const {
  if (quiet) return;
  std::string text = isatty(STDERR_FILENO) ? EscapeBytes(line) : std::string(line);
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), stderr);
}

Result<std::shared_ptr<Library>> Session::Open() const {
  Library::OpenOptions options;
  options.purpose = fmt::format("mirage {}", verb);
  return Library::Open(library_path, options);
}

int RunCommandLine(std::vector<std::string> arguments) {
  Globals globals;
  if (Status parsed = ParseGlobals(arguments, &globals); !parsed) {
    PrintError("", parsed.error().message);
    return kExitUsage;
  }
  if (globals.version) {
    std::fputs(fmt::format("mirage, library format {}\n", kFormatVersion).c_str(), stdout);
    return std::fflush(stdout) == 0 ? kExitDone : kExitFailed;
  }
  if (globals.help) {
    std::fputs(Overview().c_str(), stdout);
    return std::fflush(stdout) == 0 ? kExitDone : kExitFailed;
  }
  if (globals.verb.empty()) {
    PrintError("", "no verb given; try `mirage --help`");
    return kExitUsage;
  }
  for (const Verb& verb : Verbs()) {
    if (verb.name == globals.verb) return RunVerb(verb, std::move(globals));
  }
  PrintError("", fmt::format("{}: unknown verb; `mirage --help` lists them", globals.verb));
  return kExitUsage;
}

}  // namespace mirage
