# Tasks that are not all the same: a migration before the start, a sidecar beside the work, a note after the end.
job "ledger" {
  type = "system"

  group "ledger" {
    shutdown_delay = "3s"

    # The application holds its lock while a payment is open; a switch waits for at most a day.
    update {
      lock_limit       = "24h"
      # What the ledger holds is worth more than haste: a person looks at a failed patch.
      on_delta_failure = "hold"
      healthy_deadline = "15m"
    }

    # Runs to its end before anything else starts.
    task "migrate" {
      driver = "docker"

      lifecycle {
        hook = "prestart"
      }

      config {
        image   = "ledger:7.2"
        command = "migrate"
        args    = ["--database", "/data/ledger.db"]
        volumes = ["/srv/ledger:/data"]
      }

      restart {
        attempts = 1
        mode     = "fail"
      }
    }

    # Its end is the end of the others.
    task "ledger" {
      driver       = "docker"
      leader       = true
      kill_timeout = "30s"

      config {
        image    = "ledger:7.2"
        volumes  = ["/srv/ledger:/data"]
        cap_drop = ["net_raw"]
        devices  = [{ host_path = "/dev/ttyUSB0" }]
      }
    }

    # Starts before the main tasks, stops after them.
    task "collector" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image = "log-collector:2"
        args  = ["${NOMAD_ALLOC_DIR}/logs"]
      }

      resources {
        memory = 24
      }
    }

    task "note" {
      driver = "docker"

      lifecycle {
        hook = "poststop"
      }

      config {
        image   = "ledger:7.2"
        command = "note-stop"
        volumes = ["/srv/ledger:/data"]
      }
    }
  }
}
