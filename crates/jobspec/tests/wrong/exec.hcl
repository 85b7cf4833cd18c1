job "web" {
  type = "system"
  group "web" {
    network {
      mode = "bridge"
    }
    task "a" {
      driver = "exec"
      config {
        command = "rsync"
        image   = "web:1"
        work_dir = "../x"
      }
    }
    task "b" {
      driver = "raw_exec"
      config {
        args = ["x"]
        oom_score_adj = 10
      }
    }
    task "c" {
      driver = "exec"
      config {
        command = "${NOMAD_TASK_DIR}/../../bin/sh"
      }
    }
    task "d" {
      driver = "raw_exec"
    }
  }
  group "quiet" {
    network {
      mode = "none"
    }
    task "a" {
      driver = "exec"
      config {
        command = "/bin/true"
      }
    }
  }
}
