// Removing a directory that a daemon may still be removing files of: those of an overlay go behind its commit.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>

namespace mirage::testing {

// Tries for five seconds; the last error.
inline std::error_code RemoveAll(const std::string& path) {
  std::error_code error;
  for (int tries = 0; tries < 100; ++tries) {
    std::filesystem::remove_all(path, error);
    if (!error) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return error;
}

}  // namespace mirage::testing
