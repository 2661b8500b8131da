#include "tools/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace mirage {

struct Options::Impl {
  CLI::App app;
  std::string heading;
  bool help = false;
};

Options::Options(std::string_view verb, std::string_view synopsis, std::string_view summary)
    : impl_(std::make_unique<Impl>()) {
  impl_->heading = fmt::format("Usage: mirage {} {}\n{}\n", verb, synopsis, summary);
  impl_->app.set_help_flag();  // ours: CLI11's own throws before it has looked at the other arguments
  impl_->app.add_flag("-h,--help", impl_->help, "print this and end");
}
Options::~Options() = default;

void Options::Flag(const std::string& names, bool& value, const std::string& help) {
  impl_->app.add_flag(names, value, help);
}
void Options::Value(const std::string& names, std::string& value, const std::string& help) {
  impl_->app.add_option(names, value, help);
}
void Options::Value(const std::string& names, uint64_t& value, const std::string& help) {
  impl_->app.add_option(names, value, help);
}
void Options::Values(const std::string& names, std::vector<std::string>& values, const std::string& help) {
  impl_->app.add_option(names, values, help)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}
void Options::Positional(const std::string& name, std::string& value, const std::string& help, bool required) {
  impl_->app.add_option(name, value, help)->required(required);
}
void Options::Positionals(const std::string& name, std::vector<std::string>& values, const std::string& help, int least,
                          int most) {
  auto* option = impl_->app.add_option(name, values, help);
  option->expected(least, most == 0 ? CLI::detail::expected_max_vector_size : most)->required(least > 0);
}
void Options::Choice(const std::string& name, std::string& value, const std::vector<std::string>& choices,
                     const std::string& help) {
  impl_->app.add_option(name, value, help)->required()->check(CLI::IsMember(choices));
}

Status Options::Parse(std::vector<std::string> arguments) {
  // Help wins over whatever else is missing or wrong; behind "--" nothing is an option.
  for (const std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument == "-h" || argument == "--help") {
      impl_->help = true;
      return {};
    }
  }
  std::reverse(arguments.begin(), arguments.end());  // the order CLI11's vector form takes
  try {
    impl_->app.parse(arguments);
  } catch (const CLI::Error& error) {
    return Fail(EINVAL, "{}", error.what());
  }
  return {};
}
bool Options::help_wanted() const { return impl_->help; }
std::string Options::Help() const {
  std::string text = impl_->app.help();
  // CLI11's own "Usage:" line knows neither the verb nor its forms.
  if (const size_t start = text.find("Usage:"); start != std::string::npos) {
    text.erase(0, std::min(text.find('\n', start) + 1, text.size()));
  }
  return impl_->heading + text;
}

}  // namespace mirage
