// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "pack_tree.h"

#include <zstd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/directory.h"
#include "files.h"

namespace zstd_tree {

using namespace std::chrono_literals;
using magpie::Task;
using magpie::to_thread;

namespace {

constexpr std::size_t piece_size = 1 << 20;   // a zstd frame each: big files use all workers
constexpr std::size_t batch_bytes = 1 << 20;  // small files are compressed many at a time
constexpr std::size_t batch_pieces = 64;

/// A file on its way from SOURCE to TARGET.
struct File {
  explicit File(std::string name) : path(std::move(name)) {}

  const std::string path;
  std::unique_ptr<NewFile> output;
  std::atomic<bool> failed{false};

  magpie::Mutex mutex;                       // for what follows
  std::map<std::size_t, std::string> early;  // frames that came before their turn
  std::size_t next = 0;
  std::size_t pieces = 0;  // 0: not known yet
  std::uint64_t written = 0;
};

struct Piece {
  std::shared_ptr<File> file;
  std::size_t index = 0;
  bool last = false;
  std::string bytes;
};

bool is_passing(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::system_error& e) {
    const int code = e.code().value();
    return code == EIO || code == EAGAIN || code == EBUSY || code == EMFILE || code == ENFILE ||
           code == ETIMEDOUT;
  } catch (...) {
    return false;
  }
}

class Compressor {
 public:
  explicit Compressor(int level) : context_(::ZSTD_createCCtx()) {
    if (!context_) throw std::bad_alloc();
    ::ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
    ::ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }

  std::string frame(const std::string& bytes) {
    std::string out(::ZSTD_compressBound(bytes.size()), '\0');
    const std::size_t size =
        ::ZSTD_compress2(context_.get(), out.data(), out.size(), bytes.data(), bytes.size());
    if (::ZSTD_isError(size) != 0) throw std::runtime_error(::ZSTD_getErrorName(size));
    out.resize(size);
    return out;
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const noexcept { ::ZSTD_freeCCtx(context); }
  };
  std::unique_ptr<ZSTD_CCtx, Free> context_;
};

class Packer {
 public:
  Packer(std::string source, std::string target, Settings settings, Progress& progress)
      : source_(std::move(source)),
        target_(std::move(target)),
        settings_(settings),
        progress_(progress) {}

  Task<void> run() {
    co_await to_thread([&] { check(); });
    // Whoever fails cancels the others; all have ended when this one ends.
    co_await magpie::gather(walk(), read_all(), compress_all());
  }

 private:
  void check() const {
    namespace fs = std::filesystem;
    if (!fs::is_directory(source_)) {
      throw std::system_error(std::make_error_code(std::errc::not_a_directory), source_);
    }
    fs::create_directories(target_);
    const fs::path inner = fs::canonical(target_).lexically_relative(fs::canonical(source_));
    if (!inner.empty() && *inner.begin() != "..") {
      throw std::invalid_argument("TARGET must not lie in SOURCE: it would be packed itself");
    }
  }

  // ---- the walk: names into a channel ---------------------------------------------------------

  Task<void> walk() {
    std::vector<std::string> directories{source_};
    while (!directories.empty()) {
      const std::string directory = std::move(directories.back());
      directories.pop_back();
      support::Listing found;
      try {
        co_await to_thread([&] {
          found = support::list_directory(directory);
          std::filesystem::create_directories(target_ + directory.substr(source_.size()));
        });
      } catch (const std::system_error& error) {
        report(directory, error.code().message());
      }
      for (std::string& path : found.files) co_await paths_.send(std::move(path));
      std::move(found.directories.begin(), found.directories.end(),
                std::back_inserter(directories));
    }
    paths_.close();
  }

  // ---- readers: pieces into a channel ---------------------------------------------------------

  Task<void> read_all() {
    std::vector<Task<void>> readers;
    for (std::size_t i = 0; i < settings_.readers; ++i) readers.push_back(read_files());
    co_await magpie::gather(std::move(readers));
    pieces_.close();
  }

  Task<void> read_files() {
    for (;;) {
      std::optional<std::string> path = co_await paths_.receive();
      if (!path) co_return;
      auto file = std::make_shared<File>(*path);
      magpie::Result<void> outcome = co_await magpie::as_result(read_file(file));
      if (outcome.is_error()) {
        fail(*file, outcome.error());
      } else {
        outcome.value();  // a cancellation goes on
      }
    }
  }

  Task<void> read_file(std::shared_ptr<File> file) {
    Descriptor input;
    co_await with_retries([&] {
      input = Descriptor(file->path, O_RDONLY);
      file->output =
          std::make_unique<NewFile>(target_ + file->path.substr(source_.size()) + ".zst");
    });
    for (std::size_t index = 0;; ++index) {
      Piece piece{file, index, false, {}};
      co_await with_retries(
          [&] { piece.bytes = read_piece(input, std::uint64_t{index} * piece_size, piece_size); });
      piece.last = piece.bytes.size() < piece_size;
      progress_.bytes_read.fetch_add(piece.bytes.size());
      const bool last = piece.last || file->failed;
      co_await pieces_.send(std::move(piece));
      if (last) co_return;
    }
  }

  // ---- compressors: batches of pieces, on the workers -----------------------------------------

  Task<void> compress_all() {
    std::vector<Task<void>> compressors;
    for (std::size_t i = 0; i < settings_.compressors; ++i) compressors.push_back(compress());
    co_await magpie::gather(std::move(compressors));
  }

  Task<void> compress() {
    Compressor compressor(settings_.level);
    for (;;) {
      std::vector<Piece> batch = co_await next_batch();
      if (batch.empty()) co_return;
      for (Piece& piece : batch) {
        co_await magpie::this_task::checkpoint();  // some ms of work between two of them
        if (!piece.file->failed) piece.bytes = compressor.frame(piece.bytes);
      }
      for (Piece& piece : batch) co_await write(std::move(piece));
    }
  }

  /// One piece at least, and what lies ready besides; nothing when all has been read.
  Task<std::vector<Piece>> next_batch() {
    std::vector<Piece> batch;
    std::size_t bytes = 0;
    std::optional<Piece> piece = co_await pieces_.receive();
    while (piece) {
      bytes += piece->bytes.size();
      batch.push_back(std::move(*piece));
      piece.reset();
      if (bytes < batch_bytes && batch.size() < batch_pieces) piece = pieces_.try_receive();
    }
    co_return batch;
  }

  // ---- writers: in the order of the file, a few at a time --------------------------------------

  Task<void> write(Piece piece) {
    File& file = *piece.file;
    magpie::Mutex::Lock lock = co_await file.mutex.lock();
    if (file.failed) co_return;
    if (piece.last) file.pieces = piece.index + 1;
    file.early.emplace(piece.index, std::move(piece.bytes));
    magpie::Result<void> outcome = co_await magpie::as_result(write_what_is_next(file));
    if (outcome.is_error()) {
      fail(file, outcome.error());
    } else {
      outcome.value();
    }
  }

  Task<void> write_what_is_next(File& file) {
    while (!file.early.empty() && file.early.begin()->first == file.next) {
      const std::string frame = std::move(file.early.begin()->second);
      file.early.erase(file.early.begin());
      magpie::Permit permit = co_await writers_.acquire();
      co_await with_retries([&] { file.output->write_at(file.written, frame); });
      file.written += frame.size();
      progress_.bytes_written.fetch_add(frame.size());
      if (++file.next != file.pieces) continue;
      co_await with_retries([&] { file.output->commit(); });
      progress_.files.fetch_add(1);
    }
  }

  // ---- errors ---------------------------------------------------------------------------------

  /// `function` on a thread where it may block, again if it fails for a passing reason.
  template <class F>
  Task<void> with_retries(F function) {
    auto attempt = [&]() -> Task<void> {
      co_await to_thread([&] {
        flakiness_.maybe_fail();
        function();
      });
    };
    co_await magpie::retry(attempt, policy());
  }

  magpie::RetryPolicy policy() {
    using magpie::Backoff;
    return magpie::RetryPolicy()
        .max_attempts(8)
        .backoff(Backoff::exponential(5ms, 2, 500ms).jitter(magpie::Jitter::full))
        .retry_if(is_passing)
        .on_retry([this](const magpie::RetryEvent&) { progress_.retries.fetch_add(1); });
  }

  void fail(File& file, const std::exception_ptr& error) {
    if (file.failed.exchange(true)) return;
    try {
      std::rethrow_exception(error);
    } catch (const std::system_error& e) {
      report(file.path, e.code().message());
    } catch (const std::exception& e) {
      report(file.path, e.what());
    }
  }

  void report(const std::string& path, const std::string& what) {
    std::fprintf(stderr, "zstd_tree: %s: %s\n", path.c_str(), what.c_str());
    progress_.failed.fetch_add(1);
  }

  const std::string source_, target_;
  const Settings settings_;
  Progress& progress_;
  const Flakiness flakiness_{settings_.flakiness};
  magpie::Channel<std::string> paths_{256};
  magpie::Channel<Piece> pieces_{64};  // bounds the memory, however big the files are
  magpie::Semaphore writers_{settings_.writers};
};

}  // namespace

Task<void> pack_tree(std::string source, std::string target, Settings settings,
                     Progress& progress) {
  while (source.size() > 1 && source.back() == '/') source.pop_back();
  Packer packer(std::move(source), std::move(target), settings, progress);
  co_await packer.run();
}

}  // namespace zstd_tree
