// The few files that tell what operating system a tree holds, picked out of an import while they pass: of a directory, an
// archive or a container image, which have no other reader that looks for a system.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <string_view>

#include "indexer/system_description.h"

namespace mirage {

// Whether a path, without leading slash, is one of them: os-release, the lists of packages (dpkg's, apk's, and rpm's
// database), programs whose header tells the architecture.
bool IsSystemFile(std::string_view path);

class SystemFiles {
 public:
  // A file, of whose bytes nothing has come yet, and its bytes, in order. What is too long is cut.
  void Begin(const std::string& path);
  void Add(const std::string& path, std::string_view bytes);

  struct Described {
    SystemDescription system;
    bool found = false;     // there is an os-release; else no system is known
    bool packages = false;  // there is a list of packages that could be read
    std::string why_not;    // else, of a list that could not
  };
  // What they say. rpm's database is parsed by a process of its own (rpm_database.h).
  Described Describe(const std::atomic<bool>* interrupted) const;

 private:
  void ListRpmPackages(const std::atomic<bool>* interrupted, Described& described) const;

  std::map<std::string, std::string> files_;
  size_t bytes_ = 0;
};

}  // namespace mirage
