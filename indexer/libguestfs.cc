#include "indexer/libguestfs.h"

#include <dlfcn.h>

#include <string>

namespace mirage {
namespace {

constexpr const char* kFileName = "libguestfs.so.0";

struct Loaded {
  Libguestfs functions;
  std::string error;
};

Loaded Load() {
  Loaded loaded;
  void* const library = dlopen(kFileName, RTLD_NOW | RTLD_LOCAL);  // for as long as the process lives
  if (library == nullptr) {
    loaded.error = dlerror();
    return loaded;
  }
  const auto find = [&](const char* name) -> void* {
    void* const function = dlsym(library, name);
    if (function == nullptr && loaded.error.empty()) loaded.error = dlerror();
    return function;
  };
#define MIRAGE_FIND(name) loaded.functions.name = reinterpret_cast<decltype(&::guestfs_##name)>(find("guestfs_" #name));
  MIRAGE_GUESTFS_FUNCTIONS(MIRAGE_FIND)
#undef MIRAGE_FIND
  return loaded;
}

const Loaded& Library() {
  static const Loaded loaded = Load();
  return loaded;
}

}  // namespace

Status LoadLibguestfs() {
  if (Library().error.empty()) return {};
  return Fail(ENOTSUP, "libguestfs cannot be loaded: {}", Library().error);
}

const Libguestfs& Guestfs() { return Library().functions; }

}  // namespace mirage
