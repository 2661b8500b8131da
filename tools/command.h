// One run of one verb: what the command line said for all verbs, and what the verb hands back.
//
// Exit codes: a verb's Result<int> is the code, or an Error, which prints one line and gives the verb's code for
// trouble (1; diff 2; fsck 8). Wrong usage is 2 (fsck: 8), being interrupted 130.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/library.h"
#include "tools/options.h"
#include "tools/output.h"

namespace mirage {

constexpr int kExitDone = 0, kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130;

struct Session {
  std::string_view verb;
  std::string library_path;
  bool json = false, quiet = false;
  std::vector<std::string> paths;  // behind "--", for the verbs that take paths there
  Output* out = nullptr;

  // Talk, for stderr: one line, nothing with -q.
  void Say(std::string_view line) const;
  Result<std::shared_ptr<Library>> Open() const;
};

// Set by SIGINT, SIGTERM and SIGHUP while a verb runs that stages a version; other verbs end at once.
extern std::atomic<bool> g_interrupted;

// A wrong command line that only the verb could see. Exit 2.
tl::unexpected<Error> UsageError(std::string message);

// Runs the verb; called once, after the options it declared were parsed.
using Action = std::function<Result<int>(Session&)>;

struct Verb {
  std::string_view name, synopsis, summary;
  Action (*declare)(Options&);
  struct Traits {
    int trouble = kExitFailed;
    int usage = kExitUsage;
    bool takes_paths = false;   // "-- PATH..." at the end
    bool prints_paths = false;  // has -0
    bool stages = false;        // a signal asks it to stop, and it leaves the library as it was
  } traits;
};
const std::vector<Verb>& Verbs();  // in the order help shows them (verbs.cc)

// All of main(): returns the process's exit code.
int RunCommandLine(std::vector<std::string> arguments);

}  // namespace mirage
