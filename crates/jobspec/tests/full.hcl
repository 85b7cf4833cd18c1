job "full" {
  name        = "Full job"
  type        = "batch"
  priority    = 60
  node_pool   = "line"
  datacenters = ["plant-*", "depot"]

  constraint {
    attribute = "${meta.site}"
    operator  = "!="
    value     = "none"
  }

  meta {
    site = "north"
  }

  periodic {
    crons            = ["0 3 * * *", "30 14 * * SAT"]
    time_zone        = "Asia/Tokyo"
    prohibit_overlap = true
    enabled          = false
    missed           = "once"
    unknown_time     = "closed"
  }

  reschedule {
    delay          = "7s"
    delay_function = "fibonacci"
    max_delay      = "50s"
    unlimited      = true
  }

  update {
    min_healthy_time = "11s"
  }

  group "work" {
    count            = 3
    shutdown_delay   = "1s"
    max_run_duration = "1h"

    constraint {
      attribute = "${attr.cpu.arch}"
      value     = "arm64"
    }

    meta {
      A = "1"
    }

    network {
      mode = "bridge"

      port "http" {
        static = 8080
        to     = 80
      }
    }

    restart {
      attempts = 4
      interval = "1h"
      delay    = "2s"
      mode     = "delay"
    }

    reschedule {
      max_delay = "1m"
    }

    update {
      health_check     = "task_states"
      healthy_deadline = "6m"
      auto_revert      = false
      lock_limit       = "2h"
      on_delta_failure = "retry"
    }

    disconnect {
      lost_after = "12h"
      replace    = true
      reconcile  = "best_score"
    }

    service {
      name = "web"
      port = "http"
      tags = ["a", "b"]

      check_restart {
        limit = 5
        grace = "20s"
      }

      check {
        name     = "get"
        type     = "http"
        port     = "http"
        path     = "/health?full=1"
        method   = "POST"
        body     = "ping"
        interval = "10s"
        timeout  = "2s"
        task     = "main"

        header {
          Accept = ["text/plain", "text/html"]
        }

        success_before_passing   = 2
        failures_before_critical = 3

        check_restart {
          limit = 6
          grace = "30s"
        }
      }

      check {
        type     = "tcp"
        port     = "http"
        interval = "11s"
        timeout  = "3s"
      }
    }

    task "main" {
      driver         = "docker"
      user           = "1000:20"
      leader         = true
      kill_timeout   = "7s"
      kill_signal    = "SIGINT"
      shutdown_delay = "2s"

      constraint {
        attribute = "${node.unique.name}"
        operator  = "regexp"
        value     = "^a"
      }

      config {
        image      = "work:1"
        entrypoint = ["/bin/sh", "-c"]
        command    = "work"
        args       = ["--name", "${node.unique.name}"]
        work_dir   = "/srv"
        ports      = ["http"]
        volumes    = ["/srv:/data:ro", "data:/more"]
        cap_add    = ["CAP_NET_ADMIN"]
        cap_drop   = ["net_raw"]

        devices {
          host_path          = "/dev/video0"
          container_path     = "/dev/video1"
          cgroup_permissions = "rw"
        }

        devices {
          host_path = "/dev/ttyUSB0"
        }
      }

      env {
        A = "1"
      }

      meta {
        A = "2"
      }

      restart {
        delay = "3s"
      }

      resources {
        cpu        = 200
        memory     = 64
        memory_max = 128
        disk       = 30
      }

      logs {
        max_files     = 3
        max_file_size = 4
        disabled      = true
      }

      template {
        data                 = "a = [[ env \"A\" ]]\nb = 1\n"
        destination          = "${NOMAD_TASK_DIR}/a.conf"
        change_mode          = "signal"
        change_signal        = "SIGUSR1"
        perms                = "0640"
        left_delimiter       = "[["
        right_delimiter      = "]]"
        error_on_missing_key = true
      }

      template {
        data        = "B=2\n"
        destination = "secrets/b.env"
        env         = true
      }

      service {
        name = "inside"

        check {
          name     = "script"
          type     = "script"
          command  = "/bin/check"
          args     = ["-v", "${NOMAD_ALLOC_ID}"]
          interval = "1m"
          timeout  = "5s"
        }
      }
    }

    task "side" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image      = "side:1"
        privileged = true
      }
    }
  }

  group "program" {
    disconnect {
      stop_on_client_after = "2h"
    }

    task "program" {
      driver = "exec"

      config {
        command  = "/usr/bin/env"
        args     = ["sh", "local/run.sh"]
        work_dir = "local"
      }
    }
  }
}
