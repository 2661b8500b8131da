// A verb's options, declared by the verb and parsed by the dispatcher. The only file that sees CLI11 is options.cc, so
// that a verb compiles without it. What is bound must live until the verb has run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/result.h"

namespace mirage {

class Options {
 public:
  Options(std::string_view verb, std::string_view synopsis, std::string_view summary);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  // `names` as CLI11 takes them: "-m,--message".
  void Flag(const std::string& names, bool& value, const std::string& help);
  void Value(const std::string& names, std::string& value, const std::string& help);
  void Value(const std::string& names, uint64_t& value, const std::string& help);
  void Values(const std::string& names, std::vector<std::string>& values, const std::string& help);  // may be repeated
  void Positional(const std::string& name, std::string& value, const std::string& help, bool required);
  // `most` 0: any number.
  void Positionals(const std::string& name, std::vector<std::string>& values, const std::string& help, int least,
                   int most);
  // A word that must come first and selects what is done: "list", "resume", ...
  void Choice(const std::string& name, std::string& value, const std::vector<std::string>& choices,
              const std::string& help);

  // EINVAL: a usage error, one sentence.
  Status Parse(std::vector<std::string> arguments);
  bool help_wanted() const;
  std::string Help() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
