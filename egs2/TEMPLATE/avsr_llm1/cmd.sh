# Where jobs run. `run.pl`: on this machine. `slurm.pl`: by sbatch, with conf/slurm.conf saying what its options mean; ESPnet's
# launcher then starts several nodes (--num_nodes) by srun. Any script with run.pl's interface can stand here.
cmd_backend=${cmd_backend:-local}

case "${cmd_backend}" in
    local)
        export train_cmd="run.pl"
        export cuda_cmd="run.pl"
        export decode_cmd="run.pl"
        ;;
    slurm)
        export train_cmd="slurm.pl"
        export cuda_cmd="slurm.pl"
        export decode_cmd="slurm.pl"
        ;;
    *)
        echo "cmd.sh: cmd_backend is '${cmd_backend}', expected local or slurm" >&2
        exit 1
        ;;
esac
