// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "memory.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core.h"
#include "machine.h"

namespace magpie::cores {
namespace {

// One line of memory. `changed`: by `writer`, since others read it last.
struct Line {
  std::uintptr_t number = 0;
  std::int16_t writer = -1;
  bool changed = false;
  std::bitset<kMostCores> readers;
  std::uint64_t busy_until = 0;
};

// The lines, by their number; open addressing, never smaller.
class Directory {
 public:
  Line& at(std::uintptr_t number) {
    Line* line = &find(number);
    if (line->number == number) return *line;
    if (++used_ * 2 > lines_.size()) {
      grow();
      line = &find(number);
    }
    line->number = number;
    return *line;
  }
  void clear() {
    lines_.assign(kFirst, Line());
    used_ = 0;
  }

 private:
  static constexpr std::size_t kFirst = std::size_t{1} << 16;

  // The line, or where it belongs.
  Line& find(std::uintptr_t number) {
    std::size_t i = (number * 0x9e3779b97f4a7c15) >> 20 & (lines_.size() - 1);
    while (lines_[i].number != number && lines_[i].number != 0) i = (i + 1) & (lines_.size() - 1);
    return lines_[i];
  }
  void grow() {
    const std::vector<Line> before = std::exchange(lines_, std::vector<Line>(lines_.size() * 2));
    for (const Line& line : before)
      if (line.number != 0) find(line.number) = line;
  }

  std::vector<Line> lines_{kFirst};
  std::size_t used_ = 0;
};

struct Place {
  std::uint64_t times = 0;
  std::uint64_t cycles = 0;
};

Directory lines;
std::unordered_map<const void*, Place> places;

void wait_for_line(Core& core, std::uint64_t until, const void* place) {
  const std::uint64_t cycles = until - std::exchange(core.clock, until);
  traffic.waited += cycles;
  Place& here = places[place];
  ++here.times;
  here.cycles += cycles;
}

// From the one core that has it, after those who have asked before.
void travel(Core& core, Line& line, const void* place) {
  line.busy_until = std::max(core.clock, line.busy_until) + Costs::kMove;
  wait_for_line(core, line.busy_until, place);
}

void read_line(Core& core, Line& line, const void* place) {
  if (line.readers[core.index]) return;
  const bool first = line.readers.none();
  line.readers.set(core.index);
  if (first) return;
  if (line.changed) {
    line.changed = false;
    ++traffic.moves;
    travel(core, line, place);
  } else {
    ++traffic.shared;
    wait_for_line(core, core.clock + Costs::kShared, place);
  }
}

void write_line(Core& core, Line& line, const void* place) {
  const auto me = static_cast<std::int16_t>(core.index);
  if (line.changed && line.writer == me) return;
  const bool others = line.readers.count() > (line.readers[core.index] ? 1U : 0U);
  if (line.changed) {
    ++traffic.moves;
    travel(core, line, place);
  } else if (others) {
    ++traffic.claims;
    travel(core, line, place);
  }
  line.writer = me;
  line.changed = true;
  line.readers.reset();
  line.readers.set(core.index);
}

}  // namespace

void touch(const volatile void* memory, std::size_t bytes, Access access, const void* place) {
  Core* const core = self;
  if (core == nullptr || bytes == 0) return;
  let_others_catch_up(*core);  // the access follows before the turn goes on
  if (access == Access::locked) {
    ++traffic.locked;
    core->clock += Costs::kLocked;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t last = (address + bytes - 1) / 64;
  for (std::uintptr_t number = address / 64; number <= last; ++number) {
    ++traffic.accesses;
    core->clock += Costs::kHit;
    Line& line = lines.at(number);
    access == Access::read ? read_line(*core, line, place) : write_line(*core, line, place);
  }
}

void forget_lines() {
  lines.clear();
}
void forget_places() {
  places.clear();
}

std::string busiest_places(std::size_t count) {
  std::vector<std::pair<const void*, Place>> sorted(places.begin(), places.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.cycles > b.second.cycles; });
  sorted.resize(std::min(sorted.size(), count));
  std::string text;
  for (const auto& [pc, place] : sorted) {
    text += std::to_string(place.times) + " times, " + std::to_string(place.cycles) + " cycles:\n";
    Dl_info info{};
    if (dladdr(pc, &info) == 0) continue;
    const auto offset =
        reinterpret_cast<std::uintptr_t>(pc) - reinterpret_cast<std::uintptr_t>(info.dli_fbase) - 1;
    std::array<char, 512> line{};
    std::snprintf(line.data(), line.size(), "llvm-symbolizer-19 -C -s -p --obj=%s 0x%zx",
                  info.dli_fname, offset);
    FILE* const pipe = popen(line.data(), "r");
    if (pipe == nullptr) continue;
    while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr)
      text += std::string("    ") + line.data();
    pclose(pipe);
  }
  return text;
}

}  // namespace magpie::cores
