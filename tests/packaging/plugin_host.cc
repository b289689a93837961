// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A program that is not linked with magpie and loads a plugin that is, while it has other threads:
// then magpie's thread-local state, which has to lie in the memory that every thread has from its
// start, gets a place there. The plugin is used by the thread that loaded it, by one that is older,
// and by one that is younger.
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

int main(int count, char** arguments) {
  if (count != 2) return 2;
  std::atomic<int (*)()> use{nullptr};
  std::atomic<int> failures{0};
  std::thread older([&] {
    use.wait(nullptr);
    failures += use.load()();
  });
  void* const plugin = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    std::printf("%s\n", dlerror());
    std::_Exit(1);
  }
  auto* const found = reinterpret_cast<int (*)()>(dlsym(plugin, "use_magpie"));
  if (found == nullptr) {
    std::printf("%s\n", dlerror());
    std::_Exit(1);
  }
  use = found;
  use.notify_all();
  failures += found();
  older.join();
  std::thread younger([&] { failures += found(); });
  younger.join();
  return failures;
}
