# Serves timed runs of R's glmnet to peers.py: a line asks, a line answers; data are files of raw doubles.

suppressMessages(library(glmnet))
glmnet.control(fdev = 0, devmax = 1)

doubles <- function(folder, name, count) readBin(file.path(folder, name), "double", count)

load_data <- function(folder) {
  meta <- strsplit(readLines(file.path(folder, "meta")), " ")[[1]]
  n <- as.integer(meta[1])
  p <- as.integer(meta[2])
  list(X = matrix(doubles(folder, "X", n * p), n, p), y = doubles(folder, "y", n),
       lams = doubles(folder, "lams", as.integer(meta[3])),
       family = if (meta[4] == "logistic") "binomial" else "gaussian")
}

run <- function(d, tol, out) {
  start <- Sys.time()
  fit <- suppressWarnings(glmnet(d$X, d$y, family = d$family, lambda = d$lams, standardize = FALSE, thresh = tol,
                                 maxit = 1e9))
  seconds <- as.numeric(Sys.time() - start, units = "secs")
  if (length(fit$lambda) != length(d$lams)) return(paste("error stopped after", length(fit$lambda), "strengths"))
  writeBin(as.vector(as.matrix(fit$beta)), out)
  format(seconds, digits = 12)
}

input <- file("stdin", "r")
data <- NULL
while (length(line <- readLines(input, 1)) > 0) {
  words <- strsplit(line, "\t")[[1]]
  reply <- tryCatch(
    if (words[1] == "load") {
      data <- load_data(words[2])
      "loaded"
    } else if (words[1] == "version") {
      as.character(packageVersion("glmnet"))
    } else {
      run(data, as.numeric(words[3]), words[4])
    },
    error = function(e) paste("error", gsub("\n", " ", conditionMessage(e))))
  cat(reply, "\n", sep = "")
  flush(stdout())
}
